"""Wallaroo's names for Kafka, each of which refuses, and says what to use instead.

Kafka is not spoken here. A topic comes in through a bridge that speaks the connector
protocol, so that no message is lost or counted twice.

Pure.
"""

from typing import NoReturn

from alphabet.pipeline.topology import WallarooParameterError


def _refuse(name: str, instead: str) -> NoReturn:
    raise WallarooParameterError(f"{name}: Kafka is not supported; {instead}")


_SOURCE = (
    "give a TCPSourceConfig, and let a consumer send the topic on to --in or"
    " --connector-in"
)
_SINK = (
    "give a TCPSinkConfig, and let a producer read the outputs from --out or"
    " --connector-out"
)


def KafkaSourceConfig(*_args: object, **_names: object) -> NoReturn:  # noqa: N802 - Wallaroo's name
    """Refuse."""
    _refuse("KafkaSourceConfig", _SOURCE)


def KafkaSinkConfig(*_args: object, **_names: object) -> NoReturn:  # noqa: N802 - Wallaroo's name
    """Refuse."""
    _refuse("KafkaSinkConfig", _SINK)


def kafka_parse_source_options(_args: object) -> NoReturn:
    """Refuse."""
    _refuse("kafka_parse_source_options", _SOURCE)


def kafka_parse_sink_options(_args: object) -> NoReturn:
    """Refuse."""
    _refuse("kafka_parse_sink_options", _SINK)
