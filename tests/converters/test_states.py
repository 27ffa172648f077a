"""Files of weights: read without running anything, and everything wrong with them told at once."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxsal.converters import convert, read_weights
from jaxsal.converters.matching import Pair, matched
from jaxsal.converters.states import without_prefixes


class Malicious:
    """Pickled, it runs a command when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import pathlib

        return pathlib.Path.touch, (self.path,)


def test_a_malicious_pickle_is_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="its files are read with it")
    trap = tmp_path / "trap"
    bad = tmp_path / "bad.pth"
    torch.save({"conv.weight": torch.ones(2), "evil": Malicious(trap)}, bad)
    # it is one: read carelessly it does what it brings along
    torch.load(bad, weights_only=False)
    assert trap.exists()
    trap.unlink()
    with pytest.raises(ValueError, match=r"holds more than weights and was refused.*run code.*state_dict"):
        read_weights(bad)
    with pytest.raises(ValueError, match="was refused"):
        convert(bad, "resnet50")
    assert not trap.exists()


def test_files_of_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="its files are read with it")
    state = {"module.conv.weight": torch.arange(6.0).reshape(2, 3), "module.conv.bias": torch.ones(2).half()}
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}}, tmp_path / "trainer.pt")
    for name in ("plain.pth", "trainer.pt"):
        found = read_weights(tmp_path / name)
        np.testing.assert_array_equal(found["conv.weight"], np.arange(6.0).reshape(2, 3))
        assert found["conv.bias"].dtype == np.float32
        assert set(found) == {"conv.weight", "conv.bias"}
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"holds a list without weights"):
        read_weights(tmp_path / "list.pth")


def test_files_that_are_damaged(tmp_path):
    pytest.importorskip("torch", reason="its files are read with it")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    for name in ("cut.pth", "cut.safetensors"):
        with pytest.raises(ValueError, match=r"is not a readable|was refused"):
            read_weights(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"No weights at .*none.pth"):
        read_weights(tmp_path / "none.pth")


def test_safetensors(tmp_path):
    save_file({"module.a": np.ones((2, 2), np.float16)}, tmp_path / "a.safetensors")
    found = read_weights(tmp_path / "a.safetensors")
    assert found["a"].dtype == np.float32


def test_a_prefix_goes_only_where_all_have_it():
    assert set(without_prefixes({"module.a": 1, "b": 2})) == {"module.a", "b"}


def test_all_that_is_wrong_is_told_at_once():
    pairs = {
        "a.kernel": Pair("a.weight", np.transpose),
        "a.bias": Pair("a.bias", np.asarray),
        "b.kernel": Pair("b.w", np.asarray),
    }
    shapes = {"a.kernel": (2, 3), "a.bias": (3,), "b.kernel": (4,)}
    given = {"a.weight": np.ones((2, 3)), "b.w": np.ones(4), "c.w": np.ones(1), "a.num_batches_tracked": np.ones(())}
    with pytest.raises(ValueError, match="do not fit") as caught:
        matched(pairs, shapes, given, "file.pth")
    message = str(caught.value)
    assert "missing a.bias; unknown c.w; a.weight has shape (2, 3), for a.kernel of shape (2, 3)" in message
    assert "num_batches_tracked" not in message
