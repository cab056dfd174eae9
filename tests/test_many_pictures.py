"""Any number of pictures into a table: what it holds, and that no part is lost, torn or made twice."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import diptych
import tiny_imagenet_files
from diptych.batch import inputs, local, shards
from diptych.batch.inputs import listed
from diptych.batch.jobs import JobOptions, Pictures
from diptych.batch.plan import Plan
from diptych.batch.tables import features_table, preprocessed_table
from diptych.cli import terminal
from diptych.errors import ImageError, OutputError, UsageError
from diptych.files import IN_USE, sole_writer
from diptych.model.layers import Chain, Dense
from diptych.model.model import Model
from diptych.preprocessing import named as preprocessing_named

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

SCENES = diptych.load_model("scenes")


def save(path: Path, seed: int, size: tuple[int, int] = (40, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Twenty-three pictures, of which one is damaged."""
    folder = tmp_path_factory.mktemp("many") / "pictures"
    for number in range(23):
        save(folder / f"p{number}.png", number)
    damaged = (folder / "p7.png").read_bytes()
    (folder / "p7.png").write_bytes(damaged[:-40])
    return folder


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    """The job that nobody interrupts, in parts of five."""
    return diptych.predict("scenes", pictures, out=tmp_path_factory.mktemp("whole"), shard_size=5)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "diptych", *map(str, arguments)]


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def run(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, env=ENVIRONMENT, **options
    )


# ---- What the table holds ---------------------------------------------------------------------------------


def test_a_row_for_each_picture_in_the_order_people_count(whole, pictures):
    table = whole.table()
    assert table.column_names == ["file", "prediction", "probability", "error"]
    assert table["file"].to_pylist() == [str(pictures / f"p{number}.png") for number in range(23)]
    assert [path.name for path in whole.paths] == [f"part-0000{k}.parquet" for k in range(5)]
    assert (whole.rows, whole.failed) == (23, 1)


def test_the_values_are_those_of_predict_and_a_bad_picture_costs_its_row(whole, pictures):
    rows = whole.table().to_pylist()
    assert rows[7]["prediction"] is None
    assert "p7.png" in rows[7]["error"]
    good = [row for row in rows if row["error"] is None]
    outputs = diptych.predict("scenes", [row["file"] for row in good])
    assert [row["probability"] for row in good] == [float(value) for value in outputs.max(axis=1)]
    assert [row["prediction"] for row in good] == [SCENES.classes[i] for i in outputs.argmax(axis=1)]


def test_the_columns_that_are_asked_for(pictures, tmp_path):
    job = diptych.predict(
        "scenes",
        sorted(pictures.glob("p1*.png")),
        out=tmp_path / "t",
        columns=["top", "probabilities", "output", "input", "remarks", "score"],
        embedding="7",
        top=2,
    )
    row = job.table().to_pylist()[0]
    batch = diptych.preprocess(row["file"], SCENES)
    output = diptych.predict("scenes", batch)[0]
    assert np.array_equal(np.float32(row["output"]).reshape(row["output_shape"]), output)
    assert np.array_equal(np.float32(row["probabilities"]), output)
    assert np.array_equal(np.float32(row["input"]).reshape(row["input_shape"]), batch[0])
    layer = diptych.trace("scenes", batch)["7"][0]
    assert np.array_equal(np.float32(row["embedding"]).reshape(row["embedding_shape"]), layer)
    best = np.argsort(-output)[:2]
    assert row["top"] == [{"class": SCENES.classes[i], "value": float(output[i])} for i in best]
    assert (row["score"], row["remarks"]) == (float(output.max()), [])


def test_scores_are_not_called_probabilities(pictures, tmp_path, diptych_command):
    model = SCENES.with_(layers=SCENES.layers.with_children(SCENES.layers.layers[:-1]))
    job = diptych.predict(model, pictures, out=tmp_path / "scores")
    assert job.table().column_names == ["file", "prediction", "probability", "score", "error"]
    assert job.table()["probability"].null_count == 23
    assert any("--softmax" in remark for remark in job.remarks)
    diptych.write(model, tmp_path / "scores.safetensors")
    done = diptych_command("predict", tmp_path / "scores.safetensors", pictures, "--softmax", "--out",
                           tmp_path / "softmax")  # fmt: skip
    assert done.status == 1
    probabilities = parquet.read_table(tmp_path / "softmax" / "part-00000.parquet")["probability"].to_pylist()
    expected = diptych.predict("scenes", pictures / "p0.png").max()
    assert probabilities[0] == pytest.approx(float(expected), abs=1e-6)


def test_a_model_that_is_no_classifier_gives_its_output(pictures, tmp_path):
    model = SCENES.with_(layers=SCENES.layers.with_children(SCENES.layers.layers[:1]), classes=None)
    with pytest.raises(UsageError, match="--columns output"):
        diptych.predict(model, pictures, out=tmp_path / "x")
    job = diptych.predict(model, pictures, out=tmp_path / "t", columns=["output"])
    assert job.table().column_names == ["file", "output", "output_shape", "error"]


def test_features_and_inputs_as_tables(pictures, tmp_path, diptych_command):
    done = diptych_command("features", "scenes", pictures, "--layers", "5,7", "-o", tmp_path / "f.parquet")
    assert done.status == 1  # one picture is damaged
    row = parquet.read_table(tmp_path / "f.parquet").to_pylist()[3]
    trace = diptych.trace("scenes", pictures / "p3.png")
    for path in ("5", "7"):
        assert np.array_equal(np.float32(row[path]).reshape(row[f"{path}_shape"]), trace[path][0])
    done = diptych_command(
        "preprocess", pictures, "--preprocessing", "grey-8", "--table", "-o", tmp_path / "in"
    )
    row = parquet.read_table(tmp_path / "in" / "part-00000.parquet").to_pylist()[3]
    expected = diptych.preprocess(pictures / "p3.png", "grey-8")[0]
    assert np.array_equal(np.float32(row["input"]).reshape(row["input_shape"]), expected)


def test_filtered_pictures_with_a_table_of_them(pictures, tmp_path, diptych_command):
    model = tmp_path / "invert.safetensors"
    assert diptych_command("filter", "learn", "invert", "-o", model, "-q").status == 0
    arguments = ("filter", "apply", model, pictures, tmp_path / "out", "--table", "--shard-size", 8)
    done = diptych_command(*arguments)
    assert done.status == 1
    rows = parquet.read_table(tmp_path / "out" / "part-00000.parquet").to_pylist()
    assert rows[3]["output"] == "p3.png"
    before = np.asarray(Image.open(pictures / "p3.png"))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "p3.png")), 255 - before)
    (tmp_path / "out" / "p20.png").unlink()
    first = (tmp_path / "out" / "part-00000.parquet").stat().st_mtime_ns
    assert "15 of 23 pictures were finished already" in diptych_command(*arguments).err
    assert (tmp_path / "out" / "p20.png").exists()
    assert (tmp_path / "out" / "part-00000.parquet").stat().st_mtime_ns == first


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_one_file_made_of_the_parts(suffix, pictures, whole, tmp_path, diptych_command):
    out = tmp_path / f"table{suffix}"
    arguments = ("predict", "scenes", pictures, "--out", out, "--shard-size", 5)
    assert diptych_command(*arguments).status == 1
    job = diptych.predict("scenes", pictures, out=out, shard_size=5)
    assert any("23 of 23 pictures were finished already" in remark for remark in job.remarks)
    assert job.table()["prediction"].to_pylist() == whole.table()["prediction"].to_pylist()
    assert np.allclose(job.table()["probability"].to_pylist()[0], whole.table()["probability"].to_pylist()[0])
    assert [path.name for path in Path(f"{out}.parts").iterdir()] == ["manifest.json"]
    out.write_bytes(out.read_bytes() + b" ")
    with pytest.raises(OutputError, match="is not as this job wrote it"):
        diptych.predict("scenes", pictures, out=out, shard_size=5)
    out.unlink()
    diptych.predict("scenes", pictures, out=out, shard_size=5)
    assert out.exists()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_the_table_is_the_same_from_every_kind_of_file(suffix, pictures, whole, tmp_path):
    job = diptych.predict("scenes", pictures, out=tmp_path / f"t{suffix}")
    assert job.table()["error"].to_pylist() == whole.table()["error"].to_pylist()
    (tmp_path / f"folder{suffix}").mkdir()
    assert len(diptych.predict("scenes", pictures, out=tmp_path / f"folder{suffix}").table()) == 23


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_row_of_more_than_a_megabyte(suffix, tmp_path):
    save(tmp_path / "in/a.png", 1)
    recipe = preprocessing_named("imagenet-224")
    job = preprocessed_table(recipe, Pictures([tmp_path / "in"]), out=tmp_path / f"t{suffix}")
    assert job.out.stat().st_size > 2**20
    assert len(job.table()) == 1


def test_a_file_of_somebody_else_is_not_replaced(pictures, tmp_path):
    out = tmp_path / "thesis.csv"
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        diptych.predict("scenes", pictures, out=out)
    assert out.read_text() == "mine"


def test_to_pandas(whole):
    frame = whole.to_pandas()
    assert list(frame.columns) == ["file", "prediction", "probability", "error"]
    assert frame["prediction"].notna().sum() == 22


# ---- Which pictures ---------------------------------------------------------------------------------------


def test_folders_inside_folders_patterns_and_lists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/x10.png", "b/x9.png", "a.png", "b/c/y.jpg", "b/.hidden/z.png"):
        save(tmp_path / "in" / name, len(name))
    (tmp_path / "in" / "note.txt").write_text("no picture")
    assert [one.name for one in listed(["in"]).inputs] == ["in/a.png"]
    found = listed(["in"], recursive=True)
    assert [one.name for one in found.inputs] == ["in/a.png", "in/b/x9.png", "in/b/x10.png", "in/b/c/y.jpg"]
    assert "note.txt" in found.remarks[0]
    assert [one.name for one in listed(["in/**/*.png"]).inputs] == ["in/a.png", "in/b/x9.png", "in/b/x10.png"]
    (tmp_path / "list.txt").write_text("in/b/x9.png\n\nin/a.png\nin/b/x9.png\nin/gone.png\n")
    found = listed([], inputs.names_in("list.txt"))
    assert [one.name for one in found.inputs] == ["in/b/x9.png", "in/a.png", "in/gone.png"]
    assert "more than once are taken once: 1" in found.remarks[0]


def test_a_link_to_itself_costs_its_row(tmp_path):
    save(tmp_path / "in/a.png", 1)
    (tmp_path / "in/loop.png").symlink_to("loop.png")
    for recursive in (False, True):
        found = listed([tmp_path / "in"], recursive=recursive)
        assert [Path(one.name).name for one in found.inputs] == ["a.png", "loop.png"]


def test_pictures_that_are_named_twice_are_named_in_the_remark(tmp_path):
    save(tmp_path / "in/b.png", 1)
    (tmp_path / "in/a.png").symlink_to("b.png")
    assert listed([tmp_path / "in"]).remarks[0].endswith(f"taken once: 1 ({tmp_path / 'in/b.png'})")


def test_a_pattern_of_archives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (2, 10):
        with tarfile.open(f"shard-{number}.tar", "w") as archive:
            archive.add(save(tmp_path / f"{number}.png", number), f"{number}.png")
    names = [one.name for one in listed(["shard-*.tar"]).inputs]
    assert names == ["shard-2.tar/2.png", "shard-10.tar/10.png"]


def test_a_list_that_begins_with_a_byte_order_mark(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa.png\r\nb.png\r\n")
    assert inputs.names_in(tmp_path / "list.txt") == ["a.png", "b.png"]


def test_a_job_begun_at_the_command_line_goes_on_in_python(pictures, tmp_path, diptych_command):
    diptych_command("predict", "scenes", f"{pictures}/", "--out", tmp_path / "t")
    job = diptych.predict("scenes", f"{pictures}/", out=tmp_path / "t")
    assert "23 of 23 pictures were finished already" in job.remarks


def test_many_bad_pictures_before_the_first_good_one(tmp_path):
    for number in range(40):
        (tmp_path / f"{number}.png").write_text("no picture")
    save(tmp_path / "99.png", 1)
    job = diptych.predict("scenes", tmp_path, out=tmp_path / "t")
    assert (job.rows, job.failed) == (41, 40)


def test_a_list_on_standard_input_and_a_picture_that_is_gone(pictures, tmp_path):
    names = f"{pictures / 'p1.png'}\n{pictures / 'gone.png'}\n"
    done = run("predict", "scenes", "--list", "-", "--out", tmp_path / "t", "--json", input=names)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert (document["rows"], document["failed"]) == (2, 1)
    assert "there is no picture" in document["failures"][0]


def tar_of(path: Path, pictures: Path, names: list[str]) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in names:
            archive.add(pictures / name, f"shard/{name}")
            label = tarfile.TarInfo(f"shard/{Path(name).stem}.cls")
            label.size = 1
            archive.addfile(label, io.BytesIO(b"3"))
    return path


def test_the_pictures_of_a_webdataset_shard(pictures, whole, tmp_path):
    archive = tar_of(tmp_path / "shard-0.tar", pictures, ["p3.png", "p2.png", "p7.png"])
    job = diptych.predict("scenes", archive, out=tmp_path / "t")
    rows, files = job.table().to_pylist(), whole.table().to_pylist()
    assert [row["file"] for row in rows] == [f"{archive}/shard/p{n}.png" for n in (3, 2, 7)]
    assert [row["probability"] for row in rows] == [files[n]["probability"] for n in (3, 2, 7)]
    assert rows[2]["error"].startswith(f"{archive}/shard/p7.png begins as a PNG picture")
    assert any("3 (.cls)" in remark for remark in job.remarks)


def test_damaged_and_compressed_archives_are_refused(pictures, tmp_path):
    archive = tar_of(tmp_path / "a.tar", pictures, ["p3.png", "p2.png"])
    content = archive.read_bytes()
    for cut in (content[:700], content[:1536], b"", bytes(600)):
        archive.write_bytes(cut)
        with pytest.raises(ImageError, match=r"a\.tar"):
            listed([archive])
    broken = bytearray(content)
    second = 512 + -(-(pictures / "p3.png").stat().st_size // 512) * 512
    broken[second : second + 100] = b"\xff" * 100  # the header of the second member
    archive.write_bytes(broken)
    with pytest.raises(ImageError, match="not a whole tar"):
        listed([archive])
    import gzip

    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ImageError, match="decompress it first"):
        listed([tmp_path / "b.tar.gz"])


def test_tiny_imagenet_is_searched_whole(tmp_path):
    content = tiny_imagenet_files.content()
    for name, data in content.items():
        path = tmp_path / "tiny-imagenet-200" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    expected = sorted(name for name in content if name.endswith(".JPEG"))
    found = listed([tmp_path / "tiny-imagenet-200"]).inputs
    assert (
        sorted(str(Path(one.name).relative_to(tmp_path / "tiny-imagenet-200")) for one in found) == expected
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "no pictures were named"),
        (["gone"], "there is no picture or folder gone"),
        (["*.gif"], r"no picture and no tar archive matches \*.gif"),
        (["."], "holds no pictures"),
    ],
)
def test_no_pictures(given, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note.txt").write_text("x")
    with pytest.raises(ImageError, match=said):
        listed(given)


# ---- Interrupted, repeated, disturbed ---------------------------------------------------------------------


def test_a_killed_job_goes_on_and_its_bytes_are_those_of_one_that_was_not(pictures, whole, tmp_path):
    out = tmp_path / "t"
    process = subprocess.Popen(
        command("predict", "scenes", pictures, "--out", out, "--shard-size", 1, "--workers", 2, "-q"),
        env=ENVIRONMENT,
    )
    while len(list(out.glob("part-*"))) < 3 and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.wait()
    time.sleep(0.3)  # its processes end when they see that it has
    finished = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert len(finished) >= 3
    job = diptych.predict("scenes", pictures, out=out, shard_size=1)
    assert f"{len(finished)} of 23 pictures were finished already" in job.remarks[0]
    assert all((out / name).stat().st_mtime_ns == when for name, when in finished.items())
    assert sorted(path.name for path in out.iterdir()) == [
        "manifest.json",
        *(f"part-{k:05}.parquet" for k in range(23)),
    ]
    assert job.table().equals(whole.table())


def test_the_bytes_do_not_depend_on_the_number_of_processes(pictures, whole, tmp_path):
    for workers in (1, 3):
        diptych.predict("scenes", pictures, out=tmp_path / str(workers), shard_size=5, workers=workers)
        assert contents(tmp_path / str(workers)) == contents(whole.out)


@given(st.integers(1, 400), st.integers(1, 400))
def test_parts_hold_every_picture_once_and_are_as_equal_as_they_can_be(count, most):
    given = tuple(inputs.Input(f"{index}.png", 1, 0) for index in range(count))
    plan = Plan({}, given, most)
    parts = [plan.of_shard(number) for number in range(plan.shards)]
    assert sum(parts, ()) == given
    assert max(map(len, parts)) <= most
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_every_byte_of_a_part_counts(whole, tmp_path):
    part, plan = whole.out / "part-00001.parquet", json.loads((whole.out / "manifest.json").read_text())["id"]
    content = part.read_bytes()
    assert shards.check(part, plan, 1) == (5, 1)
    copy = tmp_path / "part"
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        copy.write_bytes(changed)
        assert shards.check(copy, plan, 1) is None, place


def test_a_part_that_is_deleted_is_made_again(pictures, whole, tmp_path):
    out = tmp_path / "t"
    diptych.predict("scenes", pictures, out=out, shard_size=5)
    (out / "part-00002.parquet").unlink()
    job = diptych.predict("scenes", pictures, out=out, shard_size=5)
    assert "19 of 23 pictures were finished already" in job.remarks[0]
    assert contents(out) == contents(whole.out)


def rewritten(path: Path) -> None:
    parquet.write_table(parquet.read_table(path), path)


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def swapped(path: Path) -> None:
    path.write_bytes(path.with_name("part-00001.parquet").read_bytes())


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize("alter", [rewritten, flipped, swapped, shortened])
def test_a_part_that_was_altered_is_said_and_kept(alter, pictures, tmp_path, diptych_command):
    out = tmp_path / "t"
    arguments = ("predict", "scenes", pictures, "--out", out, "--shard-size", 5)
    diptych_command(*arguments)
    alter(out / "part-00000.parquet")
    altered = (out / "part-00000.parquet").read_bytes()
    done = diptych_command(*arguments)
    assert done.status == 1
    assert "part-00000.parquet is not as this job wrote it" in done.err
    assert (out / "part-00000.parquet").read_bytes() == altered
    (out / "part-00000.parquet").unlink()  # as the sentence says
    assert "19 of 23" in diptych_command(*arguments).err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"top": 3', '"top": 4'),
        ("p3.png", "p33.png"),
        ('"inputs"', '"input"'),
        ("{", "["),
        ('"parts": [', '"parts": 3, "others": ['),
        ('"parts"', '"others"'),
        ('"failed": 1', '"failed": "one"'),
        ('"failed": 1', '"failed": -5'),
        ('"failed": 1', '"failed": 6'),
        ('"rows": 5', '"rows": 7'),
    ],
)
def test_a_manifest_that_was_edited_is_refused(old, new, pictures, tmp_path):
    out = tmp_path / "t"
    diptych.predict("scenes", pictures, out=out, shard_size=5)
    manifest = out / "manifest.json"
    manifest.write_text(manifest.read_text().replace(old, new))
    with pytest.raises(OutputError, match="is not the manifest of a job as it was written"):
        diptych.predict("scenes", pictures, out=out, shard_size=5)
    diptych.predict("scenes", pictures, out=out, shard_size=5, overwrite=True)


def test_a_pipe_in_the_place_of_a_part_is_not_waited_for(pictures, tmp_path):
    out = tmp_path / "t"
    diptych.predict("scenes", pictures, out=out)
    (out / "part-00000.parquet").unlink()
    os.mkfifo(out / "part-00000.parquet")
    with pytest.raises(OutputError, match=r"part-00000\.parquet is not as this job wrote it"):
        diptych.predict("scenes", pictures, out=out)


def test_a_folder_belongs_to_one_job(pictures, tmp_path):
    out = tmp_path / "t"
    diptych.predict("scenes", pictures, out=out)
    other = SCENES.with_(name="another")
    with pytest.raises(OutputError, match="holds a job with other settings"):
        diptych.predict(other, pictures, out=out)
    with pytest.raises(OutputError, match="shard_size was 256 there and is 5 now"):
        diptych.predict("scenes", pictures, out=out, shard_size=5)
    (out / "thesis.docx").write_text("mine")
    diptych.predict("scenes", pictures, out=out, shard_size=5, overwrite=True)
    assert len(list(out.glob("part-*"))) == 5
    assert (out / "thesis.docx").exists()


def test_parts_of_nobody_are_not_replaced(pictures, tmp_path):
    (tmp_path / "part-00000.parquet").write_text("mine")
    with pytest.raises(OutputError, match="it is not known which job wrote it"):
        diptych.predict("scenes", pictures, out=tmp_path)
    assert (tmp_path / "part-00000.parquet").read_text() == "mine"


def test_one_job_at_a_time_in_a_folder(pictures, tmp_path):
    with sole_writer(tmp_path), pytest.raises(OutputError, match="another command is writing"):
        diptych.predict("scenes", pictures, out=tmp_path)
    assert not (tmp_path / IN_USE).exists()


def test_pictures_that_changed_meanwhile_are_said(pictures, tmp_path):
    folder = tmp_path / "in"
    for number in range(4):
        save(folder / f"{number}.png", number)
    diptych.predict("scenes", folder, out=tmp_path / "t", shard_size=2)
    save(folder / "1.png", 99, (50, 50))
    (folder / "2.png").unlink()
    save(folder / "9.png", 9)
    said = " ".join(diptych.predict("scenes", folder, out=tmp_path / "t", shard_size=2).remarks)
    assert f"1 picture ({folder / '1.png'}) is changed since" in said
    assert f"1 picture ({folder / '2.png'}) is not there any more" in said
    assert f"1 picture ({folder / '9.png'}) is not in the job" in said
    fresh = diptych.predict("scenes", folder, out=tmp_path / "t", shard_size=2, overwrite=True)
    assert fresh.rows == 4
    assert len(fresh.table()) == 4


def test_none_of_the_pictures_can_be_used(tmp_path, diptych_command):
    for number in range(3):
        (tmp_path / f"{number}.png").write_text("no picture")
    done = diptych_command("predict", "scenes", tmp_path, "--out", tmp_path / "t")
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert "none of the 3 pictures could be used; the first: " in done.err
    assert "0.png" in done.err


def test_a_recipe_that_does_not_fit_is_said_before_any_part(pictures, tmp_path):
    with pytest.raises(diptych.errors.ShapeError):
        diptych.predict("scenes", pictures, preprocessing="grey-32", out=tmp_path / "t")
    assert not list(tmp_path.glob("t/part-*"))


def test_a_network_that_overflows_costs_its_rows(pictures, tmp_path):
    huge = Model(
        Chain((diptych.model.layers.Flatten(), Dense(np.full((2, 48), 3e38, np.float32)))),
        preprocessing=diptych.preprocessing.named("colour-4"),
    )
    with pytest.raises(ImageError, match="NaN or infinite"):
        diptych.predict(huge, pictures, out=tmp_path / "t")


POISON = """
import os, signal
from diptych.images import files
whole = files.decode
def decode(path, *args, **options):
    if os.path.basename(path) == "p3.png" and os.getppid() == {parent}:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(path, *args, **options)
files.decode = decode
"""


def test_a_picture_that_ends_its_process_costs_its_row(pictures, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(POISON.format(parent=os.getpid()))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        local, "_environment", lambda: {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    job = diptych.predict("scenes", pictures, out=tmp_path / "t", shard_size=8, workers=2)
    rows = job.table().to_pylist()
    assert [row["file"][-7:] for row in rows if row["error"]] == ["/p3.png", "/p7.png"]
    assert "has ended the process" in rows[3]["error"]


def test_processes_that_cannot_begin_end_the_job_with_a_sentence(pictures, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(7)")
    monkeypatch.setattr(local, "_environment", lambda: {**ENVIRONMENT, "PYTHONPATH": str(tmp_path)})
    with pytest.raises(OutputError, match=r"end before they begin \(exit status 7\)"):
        diptych.predict("scenes", pictures, out=tmp_path / "t", shard_size=8, workers=2)


def test_a_read_only_and_a_full_disk(pictures, tmp_path):
    with pytest.raises(OutputError, match="there is no folder"):
        diptych.predict("scenes", pictures, out=tmp_path / "gone" / "t.csv")
    work = f"preprocess {pictures} --table --preprocessing colour-512 --out {tmp_path / 't'} --shard-size 6"
    limited = f"ulimit -f 2000; exec {sys.executable} -m diptych {work}"
    done = subprocess.run(
        ["bash", "-c", limited], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"diptych: cannot write {tmp_path / 't' / 'part-0000'}")
    assert "File too large" in done.stderr
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == ["manifest.json"]
    assert run(*work.split()).returncode == 1  # the damaged picture: with room the same command goes on
    assert len(list(tmp_path.glob("t/part-*"))) == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"on": "spark"}, "a job runs on local"),
        ({"workers": 0}, "workers must be a whole number"),
        ({"shard_size": True}, "shard_size must be"),
        ({"columns": ["colour"]}, "there is no column 'colour'"),
        ({"columns": ["embedding"]}, "--embedding LAYER"),
        ({"embedding": "99"}, "there is no layer '99'"),
        ({"batch": 3}, "takes no option 'batch'"),
        ({"on": None}, "a job runs on local"),
    ],
)
def test_wrong_options(options, said, pictures, tmp_path):
    with pytest.raises(UsageError, match=said):
        diptych.predict("scenes", pictures, out=tmp_path / "t", **options)


def test_options_of_a_table_need_one(pictures, diptych_command):
    for option in (["--recursive"], ["--columns", "top"], ["--on", "ray"], ["--workers", "2"]):
        done = diptych_command("predict", "scenes", pictures, *option)
        assert done.status == 2
        assert "with --out" in done.err
    with pytest.raises(UsageError, match="name it with out="):
        diptych.predict("scenes", pictures, columns=["top"])
    with pytest.raises(UsageError, match="a table is made of picture files"):
        diptych.predict("scenes", np.zeros((1, 3, 32, 32), np.float32), out="t")


def test_the_python_interface_of_the_other_tables(pictures, tmp_path):
    recipe = diptych.preprocessing.named("grey-8")
    job = preprocessed_table(
        recipe, Pictures([pictures]), out=tmp_path / "a", options=JobOptions(shard_size=9)
    )
    assert len(job.paths) == 3
    job = features_table(SCENES, SCENES.preprocessing, Pictures([pictures]), ["7"], out=tmp_path / "b")
    assert job.table().schema.field("7").type == pa.list_(pa.float32())


def test_progress_is_a_line_now_and_then_in_a_pipe(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(terminal, "monotonic", lambda: now)
    lines = terminal._Lines()
    for done in range(0, 1001, 10):
        lines(done, 1000, "predicting")
        now += 1.0
    shown = capsys.readouterr().err.splitlines()
    assert shown == [
        "predicting: 300 of 1,000, 10/s, 1 min 10 s left",
        "predicting: 600 of 1,000, 10/s, 40 s left",
        "predicting: 900 of 1,000, 10/s, 10 s left",
    ]


# ---- Ray --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ray_and_local_processes_take_over_from_each_other(pictures, whole, tmp_path):
    """A real cluster: its driver is killed and local processes go on; then a worker of it is killed."""
    out = tmp_path / "t"
    arguments = ("predict", "scenes", pictures, "--out", out, "--shard-size", 5, "-q")
    process = subprocess.Popen(
        command(*arguments, "--on", "ray", "--workers", 2), env=ENVIRONMENT, start_new_session=True
    )
    while not list(out.glob("part-*")) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = run(*arguments, "--on", "local")
    assert done.returncode == 1  # a damaged picture
    assert contents(out) == contents(whole.out)

    for path in out.glob("part-0000[13]*"):
        path.unlink()
    again = run(*arguments, "--on", "ray", "--workers", 2)
    assert again.returncode == 1, again.stderr
    assert contents(out) == contents(whole.out)


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_sentence(pictures, tmp_path):
    done = run("predict", "scenes", pictures, "--out", tmp_path / "t", "--on", "127.0.0.1:1", timeout=120)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "the Ray cluster at 127.0.0.1:1 cannot be reached" in done.stderr


def test_the_process_ignores_ctrl_c_and_ends_with_its_starter(pictures, tmp_path):
    process = subprocess.Popen(
        command("predict", "scenes", pictures, "--out", tmp_path / "t", "--shard-size", 1, "--workers", 2),
        env=ENVIRONMENT,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.glob("t/part-*")) and process.poll() is None:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (130, 1)  # 1: all was done before the signal came
    if process.returncode == 130:
        assert (
            said.splitlines()[-1] == "diptych: interrupted; the same command continues where this one stopped"
        )
    assert not [path for path in (tmp_path / "t").iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_a_cluster_that_goes_away_in_the_middle_is_one_sentence(pictures, whole, tmp_path):
    out = tmp_path / "t"
    arguments = ("predict", "scenes", pictures, "--out", out, "--shard-size", 1, "-q")
    process = subprocess.Popen(
        command(*arguments, "--on", "ray", "--workers", 2), env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    while not list(out.glob("part-*")) and process.poll() is None:
        time.sleep(0.01)
    listing = subprocess.run(
        ["ps", "-eo", "pid=,comm=,args="], capture_output=True, text=True, check=True
    ).stdout
    nodes = [int(line.split()[0]) for line in listing.splitlines() if line.split()[1] == "raylet"]
    ours = [node for node in nodes if str(process.pid) in ancestry(node)]
    for node in ours:
        os.kill(node, signal.SIGKILL)
    printed, said = process.communicate(timeout=120)
    assert printed == ""
    if process.returncode == 1 and "damaged" not in said:  # else all was done before
        assert said.count("\n") == 1
        assert "the Ray cluster has gone away" in said
    assert run(*arguments).returncode == 1
    assert contents(out).keys() == {f"part-{number:05}.parquet" for number in range(23)}


def ancestry(pid: int) -> list[str]:
    """The process ids above a process."""
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(str(pid))
    return found
