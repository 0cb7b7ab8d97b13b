"""Data: each format written and read back, each kind of damage refused; needs no network."""

import gzip
import io
import os
import struct
import subprocess
import sys
import tracemalloc
import warnings
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytrain import data
from tinytrain.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
PIXELS = np.arange(4 * 3 * 2, dtype=np.uint8).reshape(4, 3, 2) * 10
LABELS = np.array([0, 1, 2, 1], np.uint8)


def save_npz(path: Path, **members: np.ndarray) -> Path:
    np.savez(path, **members)
    return path


def save_idx(path: Path, array: np.ndarray, code: int = 8) -> Path:
    """IDX as its definition says, independent of the reader's table."""
    head = struct.pack(">HBB", 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    raw = head + array.astype(array.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
    return path


def save_wav(
    path: Path, frames: bytes, channels: int = 1, width: int = 2, rate: int = 8000
) -> Path:
    with wave.open(str(path), "wb") as out:
        out.setparams((channels, width, rate, 0, "NONE", ""))
        out.writeframes(frames)
    return path


def save_text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def class_folders(root: Path, *names: str) -> list[Path]:
    folders = [root / name for name in names]
    for folder in folders:
        folder.mkdir(parents=True)
    return folders


def refused_message(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        data.load(path)
    return str(caught.value)


def refused(path: Path, *words: str, **options: str) -> str:
    """The message of the InputError that loading `path` raises: it names the file and `words`."""
    with pytest.raises(InputError) as caught:
        data.load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in (path.name, *words):
        assert word in message
    return message


# Formats, written and read back ------------------------------------------------------------------


def test_arrays_are_converted_and_shared_when_they_fit():
    x = np.ones((3, 2), np.float32)
    kept = data.arrays(x, [0, 1, 1])
    assert kept.x is x
    assert kept.y.dtype == np.int32
    assert len(kept) == 3
    assert data.arrays(x.astype(">f8")).x.dtype == np.dtype(np.float32)
    assert data.arrays(np.array([[1, 2]], np.int64)).x.dtype == np.int32
    assert data.arrays(x, np.ones((3, 4))).y.dtype == np.float32
    assert data.arrays(x, [True, False, True]).y.tolist() == [1, 0, 1]


def test_uint8_is_pixels_and_grey_gets_a_channel():
    grey = data.arrays(PIXELS)
    assert grey.x.shape == (4, 3, 2, 1)
    assert np.array_equal(grey.x[..., 0], PIXELS.astype(np.float32) / np.float32(255))
    assert data.arrays(np.full((1, 2, 2, 3), 255, np.uint8)).x.shape == (1, 2, 2, 3)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    x = np.asfortranarray(np.random.default_rng(0).normal(size=(4, 3)))
    save(tmp_path / "a.npz", x=x, y=LABELS, classes=np.array(["a", "b", "c"]))
    got = data.load(tmp_path / "a.npz")
    assert np.array_equal(got.x, x.astype(np.float32))
    assert got.y.tolist() == LABELS.tolist()
    assert got.classes == ("a", "b", "c")


def test_npz_without_y_and_npy_are_unlabelled(tmp_path):
    assert data.load(save_npz(tmp_path / "a.npz", x=PIXELS)).y is None
    np.save(tmp_path / "a.npy", PIXELS)
    got = data.load(str(tmp_path / "a.npy"))
    assert got.y is None
    assert got.x.shape == (4, 3, 2, 1)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("mark", ["-", "."])
def test_mnist_folder(tmp_path, suffix, mark):
    for part, n in (("train", 4), ("t10k", 3)):
        save_idx(tmp_path / f"{part}-images{mark}idx3-ubyte{suffix}", PIXELS[:n])
        save_idx(tmp_path / f"{part}-labels{mark}idx1-ubyte{suffix}", LABELS[:n])
    train = data.load(tmp_path)
    assert np.array_equal(train.x[..., 0] * 255, PIXELS)
    assert train.y.tolist() == [0, 1, 2, 1]
    assert len(data.load(tmp_path, part="train")) == 4
    assert len(data.load(tmp_path, part="test")) == 3
    assert len(data.load(tmp_path / f"t10k-images{mark}idx3-ubyte{suffix}")) == 3


@pytest.mark.parametrize(
    ("dtype", "code"), [("i1", 9), ("i2", 0xB), ("i4", 0xC), ("f4", 0xD), ("f8", 0xE)]
)
def test_idx_types(tmp_path, dtype, code):
    values = np.array([[1, -2], [3, 100]], dtype)
    got = data.load(save_idx(tmp_path / "a.idx", values, code))
    assert np.array_equal(got.x, values)
    assert got.x.dtype == (np.int32 if dtype[0] == "i" else np.float32)


def test_folder_of_npy(tmp_path):
    cat, dog = class_folders(tmp_path, "cat", "dog")
    np.save(cat / "1.npy", PIXELS[0])
    np.save(dog / "2.npy", PIXELS[1])
    (cat / ".hidden").write_bytes(b"?")
    (tmp_path / "README").write_text("beside the classes")
    got = data.load(tmp_path)
    assert got.classes == ("cat", "dog")
    assert got.y.tolist() == [0, 1]
    assert np.array_equal(got.x[..., 0] * 255, PIXELS[:2])


def test_folder_with_train_and_test(tmp_path):
    for part, n in (("train", 2), ("test", 1)):
        for folder in class_folders(tmp_path / part, "a", "b"):
            for i in range(n):
                np.save(folder / f"{i}.npy", np.zeros(3))
    assert len(data.load(tmp_path)) == 4
    assert len(data.load(tmp_path, part="test")) == 2


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P", "RGBA"])
def test_folder_of_images(tmp_path, mode):
    image = pytest.importorskip("PIL.Image", reason="Pillow is missing")
    pixels = np.random.default_rng(0).integers(0, 2, (2, 5, 4), np.uint8) * 255
    for folder, one in zip(class_folders(tmp_path, "a", "b"), pixels, strict=True):
        image.fromarray(one).convert(mode).save(folder / "1.PNG")
    got = data.load(tmp_path)
    channels = 1 if mode in ("L", "1") else 3
    assert np.array_equal(got.x, np.repeat(pixels[..., None] / 255, channels, axis=3))
    assert got.x.dtype == np.float32


def test_images_without_pillow_name_the_mend(tmp_path, monkeypatch):
    for folder in class_folders(tmp_path, "a", "b"):
        (folder / "1.png").write_bytes(b"never read")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"1\.png: .*pip install pillow"):
        data.load(tmp_path)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_folder_of_wav(tmp_path, width, channels):
    high = 1 << (8 * width - 1)
    values = np.array([[0, high // 2], [-high, -high], [high - 1, 0]])[:, :channels]
    stored = values + 128 if width == 1 else values
    frames = b"".join(
        int(v).to_bytes(width, "little", signed=width > 1) for row in stored for v in row
    )
    for folder in class_folders(tmp_path, "no", "yes"):
        save_wav(folder / "a.wav", frames, channels, width)
    got = data.load(tmp_path)
    assert got.x.shape == (2, 3, 1)
    assert np.array_equal(got.x[1, :, 0], (values.mean(axis=1) / high).astype(np.float32))


def test_wav_with_an_extensible_header(tmp_path):
    guid = struct.pack("<H", 1) + bytes.fromhex("000000001000800000aa00389b71")
    form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 8000, 24000, 3, 24, 22, 24, 4) + guid
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"LIST\x03\x00\x00\x00abc\x00" + b"data\x06\x00\x00\x00" + b"\0\0\x40\0\0\xc0"
    for folder in class_folders(tmp_path, "a", "b"):
        (folder / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert data.load(tmp_path).x[0, :, 0].tolist() == [0.5, -0.5]


@pytest.mark.parametrize(
    ("text", "label", "y", "classes"),
    [
        ("1,2,0\n3,4,1\n", None, [0, 1], None),
        ("a,b,what\n1,2,0\n\n3,4,1\n", None, [0, 1], None),
        ('1,2,"dog, old"\r\n3,4,cat\r\n', None, [1, 0], ("cat", "dog, old")),
        ("kind,b,c\ncat,1,2\ndog,3,4\n", "kind", [0, 1], ("cat", "dog")),
        ("0,1,2\n1,0,2\n3,1,4\n", "1", [0, 1], None),
        ("\ufeffa,b,y\n1,2,0.5\n3,4,1\n", None, [0.5, 1.0], None),
        ('"1", 2 ,0\n3,4,1', None, [0, 1], None),
    ],
)
def test_csv(tmp_path, text, label, y, classes):
    got = data.load(save_text(tmp_path / "t.csv", text), label=label)
    assert got.x.tolist() == [[1, 2], [3, 4]]
    assert got.x.dtype == np.float32
    assert got.y.tolist() == y
    assert got.classes == classes


# The embedded digits -----------------------------------------------------------------------------


def test_digits():
    train, test = data.digits()
    assert (len(train), len(test)) == (1438, 359)
    for part in (train, test):
        assert part.x.shape[1:] == (8, 8, 1)
        assert (part.x.dtype, part.y.dtype) == (np.float32, np.int32)
        assert (part.x.min(), part.x.max()) == (0, 1)
        assert part.classes == tuple("0123456789")
    share = np.bincount(test.y) / (np.bincount(train.y) + np.bincount(test.y))
    assert np.all(np.abs(share - 0.2) < 0.01)


def test_digits_are_a_small_file_with_its_licence():
    file = ROOT / "tinytrain" / "data" / "digits.zlib"
    assert file.stat().st_size <= 60 * 1024
    assert "CC BY 4.0" in file.with_suffix(".txt").read_text(encoding="utf-8")


def test_digits_are_what_scikit_learn_carries():
    sets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is missing")
    source = sets.load_digits()
    train, test = data.digits()
    ours = np.concatenate([train.x, test.x])[..., 0] * 16
    theirs = source.images[np.lexsort(source.images.reshape(-1, 64).T)]
    assert np.array_equal(ours[np.lexsort(ours.reshape(-1, 64).T)], theirs)


def test_import_is_light():
    lazy = ["PIL", "csv", "wave", "gzip", "zipfile"]
    code = (
        "import sys, numpy; before = set(sys.modules); import tinytrain.data.dataset, "
        f"tinytrain.data; print(sorted((set(sys.modules) - before) & set({lazy})))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "[]"


# Order -------------------------------------------------------------------------------------------


@given(
    n=st.integers(1, 200),
    batch=st.integers(1, 50),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 5),
)
def test_batches_hold_every_sample_once(n, batch, seed, epoch):
    parts = list(data.batches(n, batch, seed, epoch))
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(n))
    assert [len(p) for p in parts[:-1]] == [batch] * (len(parts) - 1)
    assert all(p.dtype == np.int32 for p in parts)
    if batch <= n:
        dropped = list(data.batches(n, batch, seed, epoch, drop_last=True))
        assert len(dropped) == n // batch
        assert all(np.array_equal(a, b) for a, b in zip(dropped, parts, strict=False))


def test_the_order_is_the_same_everywhere():
    assert next(data.batches(10, 10, seed=0)).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert next(data.batches(10, 10, seed=0, epoch=1)).tolist() == [5, 3, 7, 8, 2, 4, 1, 0, 6, 9]
    kept, held = data.split(10, 0.2, seed=0)
    assert (kept.tolist(), held.tolist()) == ([0, 1, 2, 3, 4, 5, 6, 8], [7, 9])


@given(n=st.integers(2, 300), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**63 - 1))
def test_split_parts_are_disjoint_and_whole(n, fraction, seed):
    if round(n * fraction) in (0, n):
        with pytest.raises(InputError, match="leaves one part empty"):
            data.split(n, fraction, seed)
        return
    kept, held = data.split(n, fraction, seed)
    assert len(held) == round(n * fraction)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(n))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 1, 0), "n is 0"),
        ((4, 0, 0), "batch is 0"),
        ((4, 1, -1), "seed is -1"),
        ((4, 1.5, 0), "batch is 1.5; a whole number"),
        ((4, 1, 0, 2**63), "epoch is"),
        ((4, 8, 0, 0, True), "leave no batch at all"),
    ],
)
def test_batches_refuse_at_the_call(arguments, words):
    with pytest.raises(InputError, match=words):
        data.batches(*arguments)


def test_take_keeps_names():
    whole = data.arrays([[1.0], [2.0], [3.0]], [0, 1, 1], ("a", "b"))
    part = whole.take(np.array([2, 0]))
    assert (part.x.tolist(), part.y.tolist(), part.classes) == ([[3], [1]], [1, 0], ("a", "b"))


# Bad arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y", "classes", "words"),
    [
        ([], None, None, r"x is empty \(shape \(0,\)\)"),
        (np.zeros((3, 0)), None, None, r"x is empty \(shape \(3, 0\)\)"),
        (1.0, None, None, "x is one number"),
        ([[1.0], [1.0, 2.0]], None, None, "x is no regular array"),
        (["a"], None, None, "x has dtype <U1"),
        ([object()], None, None, "x has dtype object"),
        ([1j], None, None, "x has dtype complex128"),
        ([[1.0, 2.0], [3.0, np.nan]], None, None, r"x\[1, 1\] is nan.*sample 1"),
        ([[np.inf]], None, None, r"x\[0, 0\] is inf"),
        ([1.0], [0, 1], None, "x has 1 samples, y has 2"),
        ([1.0, 2.0], [0, -1], None, r"y\[1\] is -1, labels are 0 or more"),
        ([1.0, 2.0], [0, 3], 3, r"y\[1\] is 3, labels are 0 to 2 \(3 classes\)"),
        ([1.0, 2.0], [0, 3], np.int64(3), r"y\[1\] is 3"),
        ([1.0, 2.0], [0, 2], ("a", "b"), r"y\[1\] is 2, labels are 0 to 1"),
        ([1.0, 2.0], [0.0, 1.0], 2, r"y has dtype float\d\d, but labels of classes are"),
        ([1.0], [np.nan], None, r"y\[0\] is nan"),
        ([1.0], ["cat"], None, "y has dtype <U3"),
        ([1.0], [0], 0, "classes=0"),
    ],
)
def test_check_and_arrays_refuse(x, y, classes, words):
    with pytest.raises(InputError, match=f"^here: {words}"):
        data.check(x, y, classes, where="here")
    names = classes if isinstance(classes, tuple) or not classes else ("a", "b", "c")[:classes]
    if classes != 0:
        with pytest.raises(InputError, match=f"^here: {words}"):
            data.arrays(x, y, names, where="here")


def test_check_finds_nan_behind_the_first_chunk():
    x = np.zeros((3, 700_000), np.float32)
    x[2, 5] = np.nan
    with pytest.raises(InputError, match=r"x\[2, 5\] is nan"):
        data.check(x)


def test_numbers_too_large_for_their_dtype_are_refused():
    with pytest.raises(InputError, match=r"x\[1\] is inf in float32"):
        data.arrays([0.0, 1e300])
    with pytest.raises(InputError, match="x holds 4294967296, which does not fit int32"):
        data.arrays([0, 2**32])
    with pytest.raises(InputError, match="y holds"):
        data.arrays([0.0], np.array([2**63], np.uint64))


def test_a_class_without_a_sample_is_a_warning():
    with pytest.warns(UserWarning, match=r"no sample of class b \(3 classes\)"):
        data.arrays([1.0, 2.0], [0, 2], ("a", "b", "c"))
    with pytest.warns(UserWarning, match=r"no sample of class 1, 2, 3, 4, 5 and 1999999994 more"):
        data.arrays([1.0, 2.0], [0, 2_000_000_000])
    with pytest.warns(UserWarning, match="no sample of class 2"):
        data.check([1.0, 2.0], [0, 1], 3, each_class=True)
    data.check([1.0, 2.0], [0, 2], 3)  # a batch may lack a class


# Bad files ---------------------------------------------------------------------------------------


def test_load_refuses_what_is_not_there_or_not_known(tmp_path):
    refused(tmp_path / "none.npz", "no such file")
    refused(save_text(tmp_path / "a.pkl", "?"), "not a kind of data", ".npz with x and y")
    refused(save_npz(tmp_path / "a.npz", x=PIXELS), "has no parts", part="test")
    refused(tmp_path / "a.npz", "names a column", label="y")
    with pytest.raises(InputError, match="part is"):
        data.load(tmp_path / "a.npz", part="valid")
    with pytest.raises(InputError, match=r"arrays\(x, y\)"):
        data.load(PIXELS)


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.csv", "a.idx", "a-idx3-ubyte.gz"])
def test_an_empty_file(tmp_path, name):
    (tmp_path / name).touch()
    refused(tmp_path / name)


def test_bad_npz(tmp_path):
    f = tmp_path / "a.npz"
    refused(save_npz(f, y=LABELS), "has no array x")
    refused(save_npz(f, x=np.array([{}])), "x.npy", "never unpickled")
    refused(save_npz(f, x=np.zeros(2, "i4,f4")), "not a real number")
    refused(save_npz(f, x=np.zeros(2, "M8[s]")), "not a real number")
    refused(save_npz(f, x=PIXELS, y=LABELS[:2]), "x has 4 samples, y has 2")
    refused(save_npz(f, x=PIXELS, y=-LABELS.astype(int)), "y[1] is -1")
    refused(save_npz(f, x=PIXELS, y=LABELS, classes=np.arange(3)), "classes has dtype int")
    refused(save_npz(f, x=np.array([[0.0, np.inf]])), "x[0, 1] is inf")
    refused(save_npz(f, x=np.zeros((0, 3))), "x is empty")


def test_bad_idx(tmp_path):
    images = tmp_path / "train-images-idx3-ubyte"
    labels = tmp_path / "train-labels-idx1-ubyte"
    save_idx(images, PIXELS)
    with pytest.raises(InputError, match="has no train-labels-idx1-ubyte"):
        data.load(tmp_path)
    with pytest.raises(InputError, match="has no t10k-images-idx3-ubyte"):
        data.load(tmp_path, part="test")
    refused(save_idx(labels, LABELS[:3]), "holds labels")
    refused(images, "x has 4 samples, y has 3")
    save_idx(labels, PIXELS)
    assert "labels are integers, one a sample" in refused_message(images)
    images.write_bytes(b"\x00\x00\x07\x03" + bytes(12))
    refused(images, "magic number is 0x00000703")
    images.write_bytes(save_idx(images, PIXELS).read_bytes() + b"?")
    refused(images, "24 bytes, but the file has 41")
    zipped = tmp_path / "b-idx3-ubyte.gz"
    zipped.write_bytes(gzip.compress(images.read_bytes()))
    refused(zipped, "goes on after the data")
    zipped.write_bytes(images.read_bytes())
    refused(zipped, "not a whole gzip file")


def npy_header(shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        out, {"descr": "<f8", "fortran_order": False, "shape": shape}
    )
    return out.getvalue()


@pytest.mark.parametrize("name", ["a.npy", "a.idx", "a.idx.gz", "b.idx.gz"])
def test_a_header_that_lies_allocates_nothing(tmp_path, name):
    """Each declares 256 MiB or more. b.idx.gz is long enough for its claim to be believable; the
    others are refused before a byte of data is read."""
    raw = struct.pack(">HBB2I", 0, 8, 2, 1 << 14, 1 << 14) + bytes(64)
    content = {
        "a.npy": npy_header((1 << 25,)) + bytes(64),
        "a.idx": raw,
        "a.idx.gz": gzip.compress(raw),
        "b.idx.gz": gzip.compress(raw) + os.urandom(300_000),
    }
    (tmp_path / name).write_bytes(content[name])
    tracemalloc.start()
    try:
        refused(tmp_path / name, "not a whole" if name == "b.idx.gz" else "header declares")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_bad_folders(tmp_path):
    refused(tmp_path, "no class folder")
    cat, dog = class_folders(tmp_path, "cat", "dog")
    refused(tmp_path, "hold no file")
    np.save(cat / "1.npy", np.zeros(3))
    with pytest.warns(UserWarning, match="no sample of class dog"):
        data.load(tmp_path)
    refused(tmp_path, "no folders train and test", part="test")
    for bad, words in (
        (np.zeros(4), r"dog/1\.npy: its shape is \(4,\), but .*cat/1\.npy has \(3,\)"),
        (np.zeros(3, int), "its dtype is int32, but .* has float32"),
        (np.array([0.0, 0.0, np.nan]), r"dog/1\.npy: the array\[2\] is nan"),
        (np.array([None]), "never unpickled"),
    ):
        np.save(dog / "1.npy", bad)
        with pytest.raises(InputError, match=words):
            data.load(tmp_path)
    (dog / "1.npy").rename(dog / "1.wav")
    with pytest.raises(InputError, match="another kind than"):
        data.load(tmp_path)
    (dog / "1.wav").rename(dog / "notes.txt")
    with pytest.raises(InputError, match=r"notes\.txt: is no sample"):
        data.load(tmp_path)
    (dog / "notes.txt").unlink()
    dog.rmdir()
    refused(tmp_path, "one class only, cat")


def test_bad_images(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is missing")
    a, b = class_folders(tmp_path, "a", "b")
    image.new("L", (4, 4)).save(a / "1.png")
    (b / "1.png").write_bytes((a / "1.png").read_bytes()[:40])
    assert "1.png: a broken image" in refused_message(tmp_path)
    image.fromarray(np.zeros((4, 4), np.uint16)).save(b / "1.png")
    assert "mode I" in refused_message(tmp_path)
    image.new("RGB", (4, 4)).save(b / "1.png")
    assert "its shape is (4, 4, 3)" in refused_message(tmp_path)
    huge = struct.pack(">II", 100_000, 100_000)
    (b / "1.png").write_bytes((a / "1.png").read_bytes()[:16] + huge)
    assert "1.png: a broken image" in refused_message(tmp_path)


WAV_LIES = [
    (0, b"RIFX", "does not open with RIFF and WAVE"),
    (12, b"fmt?", "has no 'fmt ' chunk"),
    (16, b"\x0c", "chunk"),
    (20, b"\x03", "format 3 with 16 bits is not"),
    (22, b"\x02", "contradicts itself (2 channels"),
    (24, b"\x01", "contradicts itself"),
    (24, bytes(4), "contradicts itself"),
    (34, b"\x0c", "format 1 with 12 bits is not"),
    (36, b"tada", "has no 'data' chunk"),
    (40, b"\x07", "no whole number of 2-byte frames"),
    (40, b"\xff\xff\xff\xff", "declares 4,294,967,295 bytes, but 8 follow"),
    (40, bytes(4), "holds no sound"),
]


@pytest.mark.parametrize(("at", "lie", "words"), WAV_LIES)
def test_wav_headers_that_lie(tmp_path, at, lie, words):
    a, _ = class_folders(tmp_path, "a", "b")
    raw = bytearray(save_wav(a / "1.wav", bytes(8)).read_bytes())
    raw[at : at + len(lie)] = lie
    (a / "1.wav").write_bytes(raw)
    message = refused_message(tmp_path)
    assert "1.wav: " in message
    assert words in message


def test_wav_rates_and_lengths_must_agree(tmp_path):
    a, b = class_folders(tmp_path, "a", "b")
    save_wav(a / "1.wav", bytes(8))
    save_wav(b / "1.wav", bytes(8), rate=16000)
    assert "its rate in Hz is 16000, but" in refused_message(tmp_path)
    save_wav(b / "1.wav", bytes(6))
    assert "its shape is (3, 1), but" in refused_message(tmp_path)


@pytest.mark.parametrize(
    ("text", "label", "words"),
    [
        ("\n\n", None, "t.csv: is empty"),
        ("a,b\n", None, "has a header but no row"),
        ("1;2\n3;4\n", None, "t.csv:1: has one column"),
        ("1,2,0\n1,0\n", None, "t.csv:2: has 2 cells, the first row has 3"),
        ("a,y\n1,0\nx,0\n", None, "t.csv:3: column 1 is 'x', not a number"),
        ("y,a\n0,1\n0,\n", "y", "t.csv:3: column 2 is empty"),
        ("1_0,0\n", None, "t.csv:1: column 1 is '1_0'"),
        ("1,0\nnan,0\n", None, "t.csv:2: column 1 is 'nan', not a finite float32"),
        ("1,0\n1e39,0\n", None, "t.csv:2: column 1 is '1e39'"),
        ("1,0\n1,-1\n", None, "t.csv:2: the label is -1"),
        ("1,0\n1,99999999999\n", None, "t.csv:2: the label is 99999999999"),
        ("1,0\n1,\n", None, "t.csv:2: has no label"),
        ("1,0.5\n1,inf\n", None, "t.csv:2: the target is 'inf'"),
        ("a,b\n1,0\n", "c", "t.csv:1: has no column named 'c'; its first row is a, b"),
        ("a,a\n1,0\n", "a", "t.csv:1: has several columns named 'a'"),
        ('1,0\n"1,0\n', None, "mend its quotes"),
        ('1,0\n"1"2,0\n', None, "t.csv:2: cannot be read"),
    ],
)
def test_bad_csv(tmp_path, text, label, words):
    with pytest.raises(InputError) as caught:
        data.load(save_text(tmp_path / "t.csv", text), label=label)
    assert words in str(caught.value)


def test_csv_that_is_not_utf_8(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"a,y\n1,0\n1,\xe9\n")
    refused(tmp_path / "t.csv", "not UTF-8")


# Damage at random --------------------------------------------------------------------------------

FILES = ["a.npz", "z.npz", "a.npy", "a.idx", "a.idx.gz", "a.csv"]
SAMPLES = ["1.npy", "1.wav"]
"""Files of a class folder; damaged in class a, while class b keeps a sound one."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A folder with one sound file of each name."""
    root = tmp_path_factory.mktemp("sound")
    save_npz(root / "a.npz", x=PIXELS, y=LABELS)
    np.savez_compressed(root / "z.npz", x=PIXELS, y=LABELS)
    np.save(root / "a.npy", PIXELS)
    save_idx(root / "a.idx", PIXELS)
    save_idx(root / "a.idx.gz", PIXELS)
    save_text(root / "a.csv", "a,b,what\n" + "1.25,2e3,cat\n" * 3 + '4,5,"dog, old"\n')
    np.save(root / "1.npy", PIXELS[0])
    save_wav(root / "1.wav", bytes(range(20)))
    for name in FILES:
        assert len(load_damaged(root, name, (root / name).read_bytes())) == 4
    for name in SAMPLES:
        assert len(load_damaged(root, name, (root / name).read_bytes())) == 2
    return root


def load_damaged(root: Path, name: str, content: bytes) -> data.Dataset | None:
    """None for an InputError that names the place; any other exception fails the test."""
    place = root / ("damaged-" + name)
    if name not in FILES:
        for folder in (place / "a", place / "b"):
            folder.mkdir(parents=True, exist_ok=True)
        (place / "a" / name).write_bytes(content)
        (place / "b" / name).write_bytes((root / name).read_bytes())
    else:
        place.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*no sample of class", UserWarning)
            return data.load(place)
    except InputError as error:
        assert place.name in str(error)
        return None


@settings(deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), name=st.sampled_from(FILES + SAMPLES))
def test_truncated_anywhere(sound, name, share):
    content = (sound / name).read_bytes()
    got = load_damaged(sound, name, content[: int(len(content) * share)])
    # A CSV cut inside its last cell is a shorter CSV.
    assert got is None or (name == "a.csv" and 1 <= len(got) <= 4)


@settings(deadline=None)
@given(content=st.binary(max_size=300), name=st.sampled_from(FILES + SAMPLES))
def test_random_bytes(sound, name, content):
    assert load_damaged(sound, name, content) is None or name == "a.csv"


@settings(deadline=None)
@given(
    at=st.floats(0, 1, exclude_max=True),
    piece=st.binary(min_size=1, max_size=4),
    name=st.sampled_from(FILES + SAMPLES),
)
def test_some_bytes_changed(sound, name, at, piece):
    """Whatever still loads is a sound data set."""
    content = bytearray((sound / name).read_bytes())
    start = int(len(content) * at)
    content[start : start + len(piece)] = piece
    got = load_damaged(sound, name, bytes(content))
    if got is not None:
        data.check(got.x, got.y, got.classes)
        assert got.x.dtype in (np.float32, np.int32)


@settings(deadline=None)
@given(
    at=st.floats(0, 1, exclude_max=True),
    piece=st.binary(max_size=4),
    name=st.sampled_from(["1.png", "1.jpg", "1.bmp", "1.tif", "1.webp"]),
)
def test_damaged_images(sound, name, at, piece):
    """Cut (no piece) or changed: what Pillow still reads is a sound data set."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is missing")
    if not (sound / name).exists():
        image.fromarray(PIXELS[0]).convert("RGB").save(sound / name)
    content = bytearray((sound / name).read_bytes())
    start = int(len(content) * at)
    content[start : start + len(piece) if piece else None] = piece
    got = load_damaged(sound, name, bytes(content))
    if got is not None:
        data.check(got.x, got.y, got.classes)
        assert got.x.shape == (2, 3, 2, 3)
