import pickle
import queue
import subprocess
import sys
import threading
import time
import weakref

# Modules are to be found where the main process finds them, and not beside the
# script of the worker.
_BEGIN = (
    "import pickle, runpy, sys; "
    "sys.path[:], script = pickle.load(sys.stdin.buffer); "
    "runpy.run_path(script, run_name='__main__')"
)


class WorkerPool:
    """Processes that are asked all at once, and end together.

    They are Python processes of their own, neither forked, which TensorFlow
    does not survive, nor spawned by `multiprocessing`, which would run the
    user's script anew. What is asked and answered is pickled, and goes through
    their standard input and output. A process that was killed has closed
    these; one that hangs is found by the time.

    Args:
        script: String, the path of what a process runs.
        timeout: Float, the seconds that an answer may take.
        begin: A function without arguments that returns the first request to a
            process.
    """

    def __init__(self, script, timeout, begin):
        self.script = script
        self.timeout = timeout
        self.begin = begin
        self.closed = False
        self._workers = []
        # At the exit of the main process, too.
        self._finalizer = weakref.finalize(self, _end, self._workers)

    def ask(self, requests, whose):
        """Asks one process each; starts those that are missing.

        Args:
            requests: List of tuples, the name and the arguments.
            whose: A function from the number of a process to words for what
                it is working at, for errors.

        Returns:
            List of the answers.

        Raises:
            ValueError: Where a worker refuses something.
            RuntimeError: Where it raises an error, hangs, or was killed. In
                all of these, all processes are ended before.
        """
        if self.closed:
            raise RuntimeError(
                "Workers must not be closed while they are in use. Received: "
                "a request after `close()` or an error. Make the environment "
                "anew."
            )
        try:
            while len(self._workers) < len(requests):
                self._workers.append(_Worker(self.script))
                self._workers[-1].send(self.begin())
                self._receive(len(self._workers) - 1, whose, self._deadline())
            for worker, request in zip(self._workers, requests):
                worker.send(request)
            deadline = self._deadline()
            return [
                self._receive(number, whose, deadline)
                for number in range(len(requests))
            ]
        except BaseException:
            self.close(patience=0.0)
            raise

    def close(self, patience=5.0):
        """Ends all processes; `patience` is the seconds that they are given."""
        self.closed = True
        _end(self._workers, patience)

    def _deadline(self):
        return time.monotonic() + self.timeout

    def _receive(self, number, whose, deadline):
        worker = self._workers[number]
        try:
            left = max(0.0, deadline - time.monotonic())
            kind, result = worker.answers.get(timeout=left)
        except queue.Empty:
            raise RuntimeError(
                f"A worker must answer within timeout={self.timeout:g} "
                f"seconds. Received: nothing, from {whose(number)}. One of "
                "its environments hangs, or needs more time. All workers were "
                "closed."
            ) from None
        if kind == "ended":
            code = worker.process.wait()
            raise RuntimeError(
                "A worker must live as long as its environments. Received: "
                f"its end, with exit code {code}, in {whose(number)}. Was it "
                "killed, or out of memory? All workers were closed."
            )
        if kind == "refused":
            raise ValueError(f"{result} All workers were closed.")
        if kind == "raised":
            raise RuntimeError(
                "An environment must not raise an error. Received: from a "
                f"worker, in {whose(number, *result[:-1])}, the error below. "
                f"All workers were closed.\n\n{result[-1]}"
            )
        return result


class _Worker:
    """A process, and a thread that waits for its answers."""

    def __init__(self, script):
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", _BEGIN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.answers = queue.SimpleQueue()
        self.thread = threading.Thread(
            target=_listen, args=(self.process.stdout, self.answers)
        )
        # Python waits for other threads before it ends the processes.
        self.thread.daemon = True
        self.thread.start()
        self.send((sys.path, script))

    def send(self, request):
        try:
            pickle.dump(request, self.process.stdin, protocol=5)
            self.process.stdin.flush()
        except OSError:
            # It has ended, which the thread tells.
            pass


def _listen(stream, answers):
    try:
        while True:
            answers.put(pickle.load(stream))
    except Exception:
        answers.put(("ended", None))


def _end(workers, patience=5.0):
    for worker in workers:
        try:
            worker.process.stdin.close()
        except OSError:
            pass
    deadline = time.monotonic() + patience
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        worker.thread.join()
        worker.process.stdout.close()
    workers.clear()


def pickled(functions):
    """Returns functions as bytes that a worker can load.

    Args:
        functions: Tuple of functions. Those of the user's script are pickled
            whole, those of modules by name.

    Returns:
        Bytes.

    Raises:
        ValueError: Where a function holds what cannot be pickled.
    """
    import cloudpickle

    # Those of this package, too, are pickled whole: by name, a worker would
    # import TensorFlow with them.
    package = sys.modules[__name__.partition(".")[0]]
    cloudpickle.register_pickle_by_value(package)
    try:
        return cloudpickle.dumps(functions)
    except Exception as error:
        raise ValueError(
            "Functions for workers must be such that they can be pickled. "
            f"Received: {functions!r}. Make within a function what it needs."
        ) from error
    finally:
        cloudpickle.unregister_pickle_by_value(package)


def shared_out(rows, workers):
    """Returns rows in parts that differ by one row at most, none empty.

    Args:
        rows: Sequence.
        workers: Integer, the most parts.

    Returns:
        List of sequences.
    """
    workers = min(workers, len(rows))
    ends = [len(rows) * part // workers for part in range(workers + 1)]
    return [rows[begin:end] for begin, end in zip(ends, ends[1:])]
