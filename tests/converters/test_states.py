"""Files of weights: read without running anything, and everything wrong with them told at once."""

import pickle
import struct

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


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_no_pickle_of_code_is_loaded(tmp_path, protocol):
    """Nor those that torch.save did not write."""
    pytest.importorskip("torch", reason="its files are read with it")
    trap = tmp_path / "trap"
    (tmp_path / "bad.pth").write_bytes(pickle.dumps({"a": Malicious(trap)}, protocol))
    with pytest.raises(ValueError, match=r"was refused.*run code|is a text file"):
        read_weights(tmp_path / "bad.pth")
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


DAMAGED = {
    "nothing": (b"", "is empty"),
    "a web page": (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\n", "pointer of Git LFS.*lfs pull"),
    "a text": ("conv1: 64 Gewichte, schön\n".encode(), r"is a text file that begins with 'conv1: 64"),
    "an archive cut off": (b"PK\x03\x04 and no more", "is not a readable file of PyTorch, it is damaged"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(40), "is not a readable file of PyTorch, it is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGED)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_files_that_are_something_else(tmp_path, what, suffix):
    """Each is told for what it is, and none for code that it would not run."""
    pytest.importorskip("torch", reason="its files are read with it")
    content, message = DAMAGED[what]
    (tmp_path / f"w.{suffix}").write_bytes(content)
    with pytest.raises(
        ValueError, match=message.replace("file of PyTorch", "(safetensors file|file of PyTorch)")
    ) as told:
        read_weights(tmp_path / f"w.{suffix}")
    assert "code" not in str(told.value)
    assert "weights_only" not in str(told.value)


@pytest.mark.parametrize("archive", [True, False])
def test_files_that_are_damaged(tmp_path, archive):
    torch = pytest.importorskip("torch", reason="its files are read with it")
    torch.save({"a": torch.ones(300)}, tmp_path / "whole.pth", _use_new_zipfile_serialization=archive)
    whole = (tmp_path / "whole.pth").read_bytes()
    for share in (0.1, 0.5, 0.9):
        (tmp_path / "cut.pth").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ValueError, match=r"is not a readable file of PyTorch, it is damaged"):
            read_weights(tmp_path / "cut.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(ValueError, match=r"is not a readable safetensors file"):
        read_weights(tmp_path / "cut.safetensors")
    with pytest.raises(FileNotFoundError, match=r"No weights at .*none.pth"):
        read_weights(tmp_path / "none.pth")


def test_a_length_that_nobody_has(tmp_path):
    pytest.importorskip("torch", reason="its files are read with it")
    (tmp_path / "long.pth").write_bytes(b"\x80\x02\x8e" + struct.pack("<Q", 2**60) + b"abc.")
    with pytest.raises(ValueError, match=r"is not a readable file of PyTorch, it is damaged"):
        read_weights(tmp_path / "long.pth")


def test_one_value_that_claims_to_be_many(tmp_path):
    """A kilobyte does not become a gigabyte, nor what no memory holds."""
    torch = pytest.importorskip("torch", reason="its files are read with it")
    one = torch.ones(1, dtype=torch.float16)
    torch.save({"a": one.expand(2**14, 2**14), "b": one.expand(2**24, 2**24), "c": one}, tmp_path / "wide.pth")
    with pytest.raises(ValueError, match=r"a repeats values .*save it \.contiguous\(\); b repeats values") as told:
        read_weights(tmp_path / "wide.pth")
    assert "c repeats" not in str(told.value)
    # parts of one array, and transposed ones, repeat nothing
    whole = torch.arange(6.0).reshape(2, 3)
    torch.save({"row": whole[1], "columns": whole.T}, tmp_path / "views.pth")
    np.testing.assert_array_equal(read_weights(tmp_path / "views.pth")["columns"], whole.numpy().T)


def test_a_checkpoint_of_training_has_one_set_of_weights(tmp_path):
    torch = pytest.importorskip("torch", reason="its files are read with it")
    kept = {"epoch": 5, "model_state_dict": {"a": torch.ones(3)}, "loss": torch.tensor(0.3)}
    torch.save(kept, tmp_path / "kept.pth")
    assert set(read_weights(tmp_path / "kept.pth")) == {"a"}
    torch.save({**kept, "net": {"a": torch.ones(3)}}, tmp_path / "two.pth")
    with pytest.raises(ValueError, match="several sets of weights: model_state_dict, net"):
        read_weights(tmp_path / "two.pth")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 3")  # of PyTorch: its own default is 2
def test_files_of_torch_by_other_protocols(tmp_path):
    torch = pytest.importorskip("torch", reason="its files are read with it")
    path = tmp_path / "old.pth"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False, pickle_protocol=3)
    np.testing.assert_array_equal(read_weights(path)["a"], np.ones(3))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch: of torch.jit itself
def test_a_program_is_told_from_weights(tmp_path):
    torch = pytest.importorskip("torch", reason="its files are read with it")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "program.pt"))
    with pytest.raises(ValueError, match=r"is a program of TorchScript, .*model\.state_dict\(\).*from_torch"):
        read_weights(tmp_path / "program.pt")


@pytest.mark.filterwarnings("ignore::UserWarning")  # of PyTorch: sparse CSR is in beta, quantisation moves elsewhere
def test_weights_without_an_equal_are_told_together(tmp_path):
    torch = pytest.importorskip("torch", reason="its files are read with it")
    odd = {
        0: torch.ones(2), "sparse": torch.eye(2).to_sparse(), "rows": torch.eye(2).to_sparse_csr(),
        "eight": torch.ones(2).to(torch.float8_e4m3fn), "none": torch.ones(2, device="meta"),
        "pairs": torch.ones(2, dtype=torch.complex32), "fine": torch.ones(2),
    }  # fmt: skip
    torch.save(odd, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match="has weights that cannot be used") as caught:
        read_weights(tmp_path / "odd.pth")
    for part in ("0 is not a name but of int", "sparse is sparse_coo, save it .to_dense", "rows is sparse_csr",
                 "eight is of float8_e4m3fn, which NumPy lacks", "none has a shape but no values",
                 "pairs is of complex32"):  # fmt: skip
        assert part in str(caught.value)
    assert "fine" not in str(caught.value)
    from safetensors.torch import save_file as save_torch

    save_torch({"eight": odd["eight"]}, tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match=r"a dtype that NumPy lacks .*float8_e4m3fn"):
        read_weights(tmp_path / "odd.safetensors")


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
