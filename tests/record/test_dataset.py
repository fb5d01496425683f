"""Records survive the way to a file and back; a file is there whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from propagate.record import dataset, provenance, storage
from propagate.record.measures import MEASURES, select
from propagate.record.statistics import HISTOGRAM_EDGES
from propagate.types import DIRECTIONS, PropagateError, UnusableInput


@pytest.fixture
def filled() -> xr.Dataset:
    coords = {"init": ["he_normal", "sigma(1.5,0.1)"], "activation": ["relu", "φ"]}
    data = dataset.new(select(("q", "mean", "histogram")), coords, seeds=2, depth=3)
    data["log10_forward_q"][:] = np.linspace(-300, 300, 2 * 2 * 2 * 4).reshape(2, 2, 2, 4)
    data["log10_forward_q"][0, 0, 0, 0] = -np.inf
    data.attrs = provenance.provenance(network={"depth": 3}, key="key", measures=["q", "mean"])
    return data


def test_a_new_record_has_the_selected_variables_and_no_numbers():
    data = dataset.new(select(), {"init": ["he_normal"]}, seeds=2, depth=3)
    expected = {m.variable(p) for m in MEASURES if not m.on_request for p in m.places}
    assert set(data) == expected
    assert all(data[name].isnull().all() for name in data)
    assert data["log10_forward_q"].dims == ("init", "seed", "layer")
    assert list(data["layer"].values) == [0, 1, 2, 3]


def test_every_variable_says_what_it_is_and_in_which_unit():
    data = dataset.new(select(("q", "mean", "histogram")), {}, seeds=1, depth=1)
    for name, variable in data.items():
        assert variable.attrs["long_name"]
        assert variable.attrs["units"] == ("log10" if name.startswith("log10_") else "1")


def test_a_histogram_has_its_bins_as_a_dim():
    data = dataset.new(select("histogram"), {}, seeds=1, depth=2)
    assert data["forward_histogram"].dims == ("seed", "layer", "bin")
    assert data.sizes["bin"] == len(HISTOGRAM_EDGES) - 1
    np.testing.assert_allclose(data["bin"], np.add(HISTOGRAM_EDGES[1:], HISTOGRAM_EDGES[:-1]) / 2)


def test_what_is_saved_is_what_is_loaded(filled, tmp_path):
    path = tmp_path / "deeper" / "record.nc"
    assert storage.save(filled, str(path)) == path
    xr.testing.assert_identical(storage.load(path), filled)
    assert [file.name for file in path.parent.iterdir()] == ["record.nc"]


def test_saving_again_replaces_the_file(filled, tmp_path):
    storage.save(filled, tmp_path / "record.nc")
    storage.save(filled.isel(seed=[0]), tmp_path / "record.nc")
    assert storage.load(tmp_path / "record.nc").sizes["seed"] == 1


def test_provenance_is_text():
    attrs = provenance.provenance(network={"depth": 3}, kind="mlp")
    assert {"propagate", "jax", "jaxlib", "date"} <= set(attrs)
    assert json.loads(attrs["network"]) == {"depth": 3}
    assert attrs["kind"] == "mlp"


@pytest.mark.parametrize(
    ("error", "raised"), [(OSError("full"), PropagateError), (KeyError(), KeyError)]
)
@pytest.mark.parametrize("before", [None, b"old"])
def test_a_failure_midway_leaves_what_was_there(tmp_path, error, raised, before):
    path = tmp_path / "record.nc"
    if before:
        path.write_bytes(before)

    def write(part):
        part.write_bytes(b"half")
        raise error

    with pytest.raises(raised):
        storage.write_whole(path, write)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([before] if before else [])


def test_a_record_that_cannot_be_written_leaves_no_file(filled, tmp_path):
    filled.attrs["bad"] = {"not": "text"}
    with pytest.raises(TypeError):
        storage.save(filled, tmp_path / "record.nc")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_is_named(filled, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PropagateError, match=r"cannot write .*record.nc.*choose another folder"):
        storage.save(filled, tmp_path / "file" / "record.nc")


def test_a_folder_in_the_place_of_the_file_is_not_replaced(filled, tmp_path):
    (tmp_path / "record.nc").mkdir()
    with pytest.raises(PropagateError):
        storage.save(filled, tmp_path / "record.nc")


JUNK = {
    "empty": b"",
    "text": b"junk" * 100,
    "four bytes": b"CDF\x01",
    "no dimensions": b"CDF\x01" + bytes(4) + b"\x00\x00\x00\x0a\x00\x00\x00\x01" + b"\xff" * 9,
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(64),
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_junk_is_refused(tmp_path, junk):
    path = tmp_path / "record.nc"
    path.write_bytes(junk)
    with pytest.raises(UnusableInput, match=r"record\.nc is not a netCDF record"):
        storage.load(path)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.99])
def test_part_of_a_record_is_refused(filled, tmp_path, share):
    path = storage.save(filled, tmp_path / "record.nc")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UnusableInput, match=r"record\.nc is not a netCDF record"):
        storage.load(path)


def test_netcdf_that_is_not_a_record_is_refused(tmp_path):
    xr.Dataset({"a": ("x", [1.0, 2.0])}).to_netcdf(tmp_path / "other.nc", engine="scipy")
    with pytest.raises(UnusableInput, match="no dim 'layer' or 'site'"):
        storage.load(tmp_path / "other.nc")


@pytest.mark.parametrize("name", ["nowhere.nc", "."])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(UnusableInput, match="does not exist"):
        storage.load(tmp_path / name)


def test_the_output_has_no_activation_and_the_input_no_weight():
    rows = np.ones((3, 2))
    assert np.isnan(dataset.along_layers("activation", rows)[-1]).all()
    assert np.isnan(dataset.along_layers("weight_gradient", rows)[0]).all()
    np.testing.assert_array_equal(dataset.along_layers("forward", rows), rows)


def test_a_second_moment_has_one_name_and_its_directions_one_order(filled):
    assert DIRECTIONS == ("forward", "backward")
    assert dataset.measured_directions(filled) == ["forward", "backward"]
    backward = filled.drop_vars("log10_forward_q")
    assert dataset.measured_directions(backward) == ["backward"]
    for direction in DIRECTIONS:
        assert dataset.second_moment_name(direction) in filled
        xr.testing.assert_identical(
            dataset.second_moment(filled, direction), filled[f"log10_{direction}_q"]
        )
    with pytest.raises(KeyError, match="log10_forward_q"):
        dataset.second_moment(backward, "forward")
    assert dataset.second_moment_sd(filled, "forward") is None
    theory = filled.rename(log10_backward_q="log10_backward_q_sd")
    assert dataset.second_moment_sd(theory, "backward") is not None


@pytest.mark.parametrize("room", ["verdicts", "plot", "report", "cli"])
def test_who_reads_a_record_does_not_spell_the_name_itself(room):
    files = list((Path(dataset.__file__).parent.parent / room).glob("*.py"))
    assert files and not [path.name for path in files if 'f"log10_{' in path.read_text()]
