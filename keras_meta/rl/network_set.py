import keras


@keras.saving.register_keras_serializable(package="keras_meta")
class NetworkSet(keras.Model):
    """Several Keras models as one, so that one file holds them.

    Args:
        networks: List of built `keras.Model`.
        **kwargs: Arguments of `keras.Model`, such as `name`.
    """

    def __init__(self, networks, **kwargs):
        super().__init__(**kwargs)
        self.networks = list(networks)
        self.built = True

    def call(self, inputs):
        """Returns the list of what the models answer to a list of inputs."""
        return [network(x) for network, x in zip(self.networks, inputs)]

    def get_config(self):
        networks = [
            keras.saving.serialize_keras_object(network)
            for network in self.networks
        ]
        return {**super().get_config(), "networks": networks}

    @classmethod
    def from_config(cls, config):
        networks = [
            keras.saving.deserialize_keras_object(network)
            for network in config.pop("networks")
        ]
        return cls(networks, **config)
