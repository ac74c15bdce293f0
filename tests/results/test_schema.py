from __future__ import annotations

import dataclasses

import pyarrow as pa
import pytest

from pixeltune.config import FAMILIES, GatedConfig
from pixeltune.results import schema
from pixeltune.results.schema import COLUMNS, CURVE_SCHEMA, SCHEMA_VERSION, TRIAL_SCHEMA, VERSION_KEY
from pixeltune.space import METRICS
from pixeltune.training.epoch_report import EpochReport
from tests.support.results import PAIRS, make_config


@pytest.mark.parametrize(("family", "likelihood"), PAIRS)
def test_every_configuration_key_has_a_column_that_takes_its_value(family: str, likelihood: str) -> None:
    for key, value in make_config(family, likelihood).flat().items():
        kind = TRIAL_SCHEMA.field(key).type
        assert value is None or pa.scalar(value, kind).as_py() == value
        assert type(value) in (type(None), {"bool": bool, "int64": int, "double": float, "string": str}[str(kind)])


def test_every_report_field_is_a_curve_column() -> None:
    assert set(CURVE_SCHEMA.names) >= {field.name for field in dataclasses.fields(EpochReport)}


def test_every_metric_that_a_search_can_optimise_is_a_trial_column() -> None:
    assert set(TRIAL_SCHEMA.names) >= set(METRICS)


@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_is_described(name: str) -> None:
    assert len(COLUMNS[name].description) > 5
    assert COLUMNS[name].description != f"configuration key {name}"


def test_descriptions_units_and_version_stand_in_the_schema() -> None:
    field = TRIAL_SCHEMA.field("valid_nats")
    assert field.metadata[b"unit"] == b"nats/image"
    assert b"validation" in field.metadata[b"description"]
    assert TRIAL_SCHEMA.metadata[VERSION_KEY] == str(SCHEMA_VERSION).encode()


def test_a_key_with_different_types_in_two_families_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clashing(GatedConfig):
        head_channels: str = "many"  # type: ignore[assignment]

    monkeypatch.setitem(FAMILIES, "clashing", Clashing)
    with pytest.raises(TypeError, match=r"model\.head_channels.*one type"):
        schema.config_columns()


@pytest.mark.parametrize("annotation", [list[int], int | str, dict])
def test_a_field_that_no_column_can_hold_is_refused(annotation: object) -> None:
    with pytest.raises(TypeError, match="must be a bool, int, float or str"):
        schema.arrow_type(annotation)
