import collections
import glob
import hashlib
import os
import struct

import numpy as np
import tensorflow as tf

from keras_meta.episodes import labeled_examples
from keras_meta.episodes.reading_progress import reading_progress
from keras_meta.episodes.sampled_episodes import check_sampling
from keras_meta.episodes.sampled_episodes import sample_episodes

# A record of TFRecord: its length and a checksum of that, the content, and a
# checksum of the content.
_HEADER, _CHECKSUM = 12, 4
# How many records are parsed at once when labels are read.
_CHUNK = 256


def from_records(
    files,
    parse,
    ways,
    shots,
    queries,
    labels=None,
    groups=None,
    class_names=None,
    verbose=True,
    **sampling,
):
    """Makes episodes from files of records that are larger than memory.

    An episode reads the records that it needs, and no others. All are read
    once, for their labels; with `labels` not even that. TFRecord files are
    read in the graph, ArrayRecord files through Python (and need the package
    `array_record`).

    Args:
        files: String or path, or a list of them: TFRecord files that are not
            compressed, or ArrayRecord files, those with `array_record` in
            their names. `*` and `?` stand for any characters.
        parse: Function of a scalar string tensor, a record, that returns a
            pair `(x, y)`: an example, of the same shape for all, and its
            class, an integer. It runs in the graph.
        ways: Integer or pair; see `keras_meta.episodes.from_arrays()`.
        shots: Integer, pair or `"imbalanced"`; see there.
        queries: Integer or pair; see there.
        labels: Optional integers, the classes of all records in the order of
            the files, to spare reading them.
        groups: Optional sequence, the group of each class in the order of
            its label, or of each record.
        class_names: Optional sequence of strings, where number `i` is the
            name of class `i`.
        verbose: Boolean, whether to draw a progress bar where reading labels
            takes long. Defaults to `True`.
        **sampling: The other arguments of
            `keras_meta.episodes.from_arrays()`.

    Returns:
        A `tf.data.Dataset` as that of `keras_meta.episodes.from_arrays()`.

    Raises:
        FileNotFoundError: Where there is no such file.
        ValueError: Where a file is damaged or compressed (it is named), or
            holds too few records.
        TypeError: Where `parse` returns something else.

    Example:

    ```python
    with tf.io.TFRecordWriter("images.tfrecord") as file:
        for label in range(5):
            for _ in range(4):
                pixels = np.random.randint(0, 256, size=(28, 28, 1))
                image = tf.io.encode_png(pixels.astype("uint8")).numpy()
                features = {
                    "image": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[image])
                    ),
                    "label": tf.train.Feature(
                        int64_list=tf.train.Int64List(value=[label])
                    ),
                }
                example = tf.train.Example(
                    features=tf.train.Features(feature=features)
                )
                file.write(example.SerializeToString())

    def parse(record):
        found = tf.io.parse_single_example(
            record,
            {
                "image": tf.io.FixedLenFeature([], "string"),
                "label": tf.io.FixedLenFeature([], "int64"),
            },
        )
        image = tf.io.decode_png(found["image"], channels=1)
        return tf.ensure_shape(image, (28, 28, 1)), found["label"]

    episodes = keras_meta.episodes.from_records(
        "images.tfrecord", parse, ways=3, shots=1, queries=2
    )
    ```
    """
    check_sampling(ways, shots, queries, sampling)
    examples = RecordExamples(
        files, parse, labels, groups, class_names, verbose
    )
    return sample_episodes(examples, ways, shots, queries, **sampling)


class RecordExamples:
    """Labeled examples in files; has what `LabeledExamples` has, but `x`."""

    def __init__(
        self, files, parse, labels=None, groups=None, names=None, verbose=True
    ):
        self.files = _find(files)
        of_arrays = {_is_array_record(file) for file in self.files}
        if len(of_arrays) > 1:
            raise ValueError(
                "The files must be of one kind. Received: TFRecord and "
                f"ArrayRecord files: {self.files[:5]}."
            )
        kind = _ArrayRecords if of_arrays.pop() else _TFRecords
        self._records = kind(self.files)
        if not self._records.count:
            raise ValueError(
                "There must be at least one record. Received: "
                f"{self.files[0]}, which holds none, or is damaged."
            )
        self._parse, self.element_spec = _traced(parse)
        if labels is None:
            labels = self._read_labels(verbose)
        count = self._records.count
        if len(labels) != count:
            raise ValueError(
                "`labels` must hold the class of each record. Received: "
                f"{len(labels)} labels for {count} records."
            )
        self.labels = labeled_examples.labels_of(tf.zeros([count]), labels)
        self.groups = labeled_examples.groups_of(self.labels, groups)
        labeled_examples.check_class_names(self.labels, names)
        self.class_names = names
        self.name = os.path.basename(self.files[0])
        if len(self.files) > 1:
            self.name += f" and {len(self.files) - 1} more"

    def gather(self, positions):
        """Returns the examples at these positions, as they are."""
        records = self._records.read(tf.reshape(positions, [-1]))
        examples = tf.map_fn(
            lambda record: self._parse(record)[0],
            records,
            fn_output_signature=self.element_spec,
            parallel_iterations=16,
        )

        def shape(leaf):
            outer = [size or -1 for size in positions.shape]
            return tf.reshape(leaf, [*outer, *leaf.shape[1:]])

        return tf.nest.map_structure(shape, examples)

    def fingerprint(self):
        """Returns a hash of the records and their labels, as a string."""
        digest = hashlib.sha256(self.labels.astype("int64").tobytes())
        digest.update(self._records.checksums())
        # What `parse` makes of them counts, too; two records have to do.
        ends = self.gather(tf.constant([0, len(self.labels) - 1]))
        parsed = labeled_examples.LabeledExamples(ends, [0, 1])
        digest.update(parsed.fingerprint().encode())
        return digest.hexdigest()

    def _read_labels(self, verbose):
        def label_of(record):
            return self._parse(record)[1]

        def read():
            for file in self.files:
                records = self._records.dataset(file)
                batches = records.map(label_of, tf.data.AUTOTUNE).batch(_CHUNK)
                try:
                    yield from batches.as_numpy_iterator()
                except tf.errors.OpError as error:
                    raise _damaged(file, error.message) from error

        # Files end where they end, and so does their last chunk.
        chunks = sum(-(-count // _CHUNK) for count in self._records.counts)
        return np.concatenate([*reading_progress(read(), chunks, verbose)])


class _TFRecords:
    """Records of TFRecord files, each read from its place in the graph."""

    def __init__(self, files):
        indexes = [_index(file) for file in files]
        self.counts = [len(index) for index in indexes]
        self.count = sum(self.counts)
        self._files = tf.constant(files)
        self._file = tf.constant(np.repeat(np.arange(len(files)), self.counts))
        index = np.concatenate(indexes)
        self._places = tf.constant(index["place"])
        self._index = index

    def dataset(self, file):
        return tf.data.TFRecordDataset(file)

    def read(self, positions):
        return tf.map_fn(
            self._read_one,
            positions,
            fn_output_signature=tf.TensorSpec([], "string"),
            parallel_iterations=16,
        )

    def _read_one(self, position):
        # TensorFlow's reader checks the checksums; its place in a file can be
        # told to the operation alone.
        file = tf.gather(self._files, tf.gather(self._file, position))
        records = tf.raw_ops.TFRecordDatasetV2(
            filenames=file[None],
            compression_type="",
            buffer_size=tf.constant(0, "int64"),
            byte_offsets=tf.gather(self._places, position)[None],
        )
        types = {"output_types": [tf.string], "output_shapes": [[]]}
        first = tf.raw_ops.TakeDataset(
            input_dataset=records, count=tf.constant(1, "int64"), **types
        )
        return tf.raw_ops.DatasetToSingleElement(dataset=first, **types)[0]

    def checksums(self):
        return self._index[["length", "checksum"]].tobytes()


class _ArrayRecords:
    """Records of ArrayRecord files, read through Python."""

    def __init__(self, files):
        try:
            from array_record.python import array_record_module
        except ImportError as error:
            raise ImportError(
                "ArrayRecord files are read by the package `array_record`. "
                "Install it with `pip install array_record`."
            ) from error
        self._readers = {}
        for file in files:
            try:
                reader = array_record_module.ArrayRecordReader(file)
                self._readers[file] = reader
                # A file that was cut off says that it holds nothing.
                if not reader.num_records():
                    raise RuntimeError("it holds no record")
            except RuntimeError as error:
                raise _damaged(file, error) from error
        readers = list(self._readers.values())
        self.counts = [reader.num_records() for reader in readers]
        self.count = sum(self.counts)
        self._starts = np.cumsum([0, *self.counts])

    def dataset(self, file):
        reader = self._readers[file]

        def read(start):
            last = min(int(start) + _CHUNK, reader.num_records())
            try:
                records = reader.read(list(range(start, last)))
            except RuntimeError as error:
                raise _damaged(file, error) from error
            return np.array(records, object)

        def records(start):
            found = tf.numpy_function(read, [start], "string", stateful=False)
            return tf.ensure_shape(found, [None])

        starts = tf.data.Dataset.range(0, reader.num_records(), _CHUNK)
        return starts.map(records).unbatch()

    def read(self, positions):
        readers = list(self._readers.values())

        def read(positions):
            files = np.searchsorted(self._starts, positions, "right") - 1
            found = np.empty(len(positions), object)
            for file in np.unique(files):
                (here,) = np.nonzero(files == file)
                places = positions[here] - self._starts[file]
                found[here] = readers[file].read(places.tolist())
            return found

        found = tf.numpy_function(read, [positions], "string", stateful=False)
        return tf.ensure_shape(found, positions.shape)

    def checksums(self):
        digest = hashlib.sha256()
        for reader in self._readers.values():
            for start in range(0, reader.num_records(), _CHUNK):
                last = min(start + _CHUNK, reader.num_records())
                for record in reader.read(list(range(start, last))):
                    digest.update(len(record).to_bytes(8, "little") + record)
        return digest.digest()


def _find(files):
    if isinstance(files, (str, os.PathLike)):
        files = [files]
    found = []
    for file in files:
        file = os.fspath(file)
        matches = [file] if os.path.isfile(file) else sorted(glob.glob(file))
        if not matches:
            raise FileNotFoundError(
                f"`files` must name files of records. Received: {file}, where "
                "there is none."
            )
        found.extend(matches)
    if not found:
        raise ValueError(
            "`files` must name files of records. Received: an empty list."
        )
    real = [os.path.realpath(file) for file in found]
    times = collections.Counter(real)
    twice = [file for file, path in zip(found, real) if times[path] > 1]
    if twice:
        # A record would be support and query of one episode.
        raise ValueError(
            "Each file must be named once. Received: "
            f"{sorted(set(twice))[:5]}, named twice."
        )
    return found


def _is_array_record(file):
    name = os.path.basename(file).replace("_", "").lower()
    return "arrayrecord" in name


def _index(file):
    """Returns where each record of a TFRecord file is."""
    size = os.path.getsize(file)
    index, place = [], 0
    with open(file, "rb") as content:
        while place < size:
            content.seek(place)
            header = content.read(_HEADER)
            length = int.from_bytes(header[:8], "little")
            end = place + _HEADER + length + _CHECKSUM
            if len(header) < _HEADER or end > size:
                raise _damaged(
                    file, f"record {len(index)} is longer than the file"
                )
            content.seek(end - _CHECKSUM)
            (checksum,) = struct.unpack("<I", content.read(_CHECKSUM))
            index.append((place, length, checksum))
            place = end
    return np.array(
        index, [("place", "i8"), ("length", "i8"), ("checksum", "u4")]
    )


def _damaged(file, reason):
    return ValueError(
        "Every file must be a whole TFRecord (not compressed) or ArrayRecord "
        f"file. Received: {file}, which is damaged or something else: "
        f"{reason}."
    )


def _traced(parse):
    """Returns `parse` as a function of the graph, and what `x` is."""
    if not callable(parse):
        raise TypeError(
            "`parse` must be a function of a record. Received: "
            f"parse={parse!r}."
        )
    traced = tf.function(
        parse, input_signature=[tf.TensorSpec([], "string")], autograph=True
    )
    outputs = traced.get_concrete_function().structured_outputs
    is_pair = isinstance(outputs, (tuple, list)) and len(outputs) == 2
    label = outputs[1] if is_pair else None
    if not hasattr(label, "dtype") or not label.dtype.is_integer:
        raise TypeError(
            "`parse` must return a pair `(x, y)`, an example and its class, "
            f"an integer. Received: a function that returns {outputs}."
        )
    if label.shape.rank:
        raise TypeError(
            "The class that `parse` returns must be a single integer. "
            f"Received: a tensor of shape {label.shape}."
        )
    for leaf in tf.nest.flatten(outputs[0]):
        if not leaf.shape.is_fully_defined():
            raise TypeError(
                "All examples must have one shape, which `parse` tells. "
                f"Received: a function that returns x of shape {leaf.shape}. "
                "Resize it, or use `tf.ensure_shape(x, shape)`."
            )
    spec = tf.nest.map_structure(
        lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), outputs[0]
    )
    return traced, spec
