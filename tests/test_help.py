"""Help pages whose examples parse, the same words for the same options, and a shell that completes them."""

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from retinaface_tf.cli import main as cli
from retinaface_tf.cli import options as options_of
from retinaface_tf.cli.options import children


def parsers(parser=None, words=()):
    """(words, parser) of the command and of all below it."""
    parser = parser or cli.build_parser()
    yield words, parser
    for word, child in children(parser).items():
        yield from parsers(child, (*words, word))


ALL = dict(parsers())
COMMANDS = {words: parser for words, parser in ALL.items() if not children(parser)}
# An option -> what stands for its value. Whoever adds one with another name for the same thing is told here.
METAVARS = {
    "--batch-size": {"N"},
    "--bootstrap": {"N"},
    "--images": {"DIR", "PHOTO"},  # verify takes single photos, too
    "--json": {"FILE"},
    "--max-detections": {"N"},
    "--model": {"PATH"},
    "--nms-threshold": {"T"},
    "--output": {"DIR", "FILE", "PATH", "OUT"},
    "--plots": {"DIR"},
    "--preset": {"NAME"},
    "--protocol": {"NAME"},
    "--score-threshold": {"S"},
    "--seed": {"N"},
    "--workers": {"N"},
}


def examples(parser):
    """The words of each example on a help page; what follows two blanks is remark, a pipe ends the command."""
    lines = parser.format_help().replace("\\\n", " ").splitlines()
    for line in lines:
        if line.startswith("  retinaface-tf "):
            command = re.split(r"\s{2,}(?!--|\S+=)|\s[|>]\s", line.strip().replace("       ", " "))[0]
            yield shlex.split(command, comments=True)[1:]


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_help_page_has_examples_that_parse_and_exit_codes(words):
    page = ALL[words].format_help()
    found = list(examples(ALL[words]))
    assert found
    assert "exit codes: 0 " in page
    for example in found:
        assert example[: len(words)] == list(words)
        cli.build_parser().parse_args(example)


# Options whose help alone is enough: names of files and models, numbers, and switches that say all.
OBVIOUS = {
    *("--help", "--output", "--json", "--csv", "--plots", "--quiet", "--overwrite", "--strict", "--preset", "--model"),
    *("--batch-size", "--max-detections", "--max-pixels", "--nms-threshold", "--score-threshold", "--no-close-ups"),
    *("--no-pictures", "--no-plots", "--ground-truth", "--runs", "--runtime", "--seed", "--shards", "--workers"),
    *("--bootstrap", "--image-size", "--labels", "--no-decode", "--protocol"),
}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_an_option_that_is_not_obvious_has_an_example(words):
    shown = {word for example in examples(COMMANDS[words]) for word in example}
    for action in COMMANDS[words]._actions:
        if action.option_strings and action.help != argparse.SUPPRESS:
            assert {*action.option_strings} & (OBVIOUS | shown), f"{' '.join(words)}: {action.option_strings[0]}"


def options():
    for words, parser in COMMANDS.items():
        for action in parser._actions:
            for option in action.option_strings:
                yield words, option, action


def test_the_same_options_have_the_same_words():
    wrong = [
        (" ".join(words), option, action.metavar)
        for words, option, action in options()
        if option in METAVARS and action.metavar not in METAVARS[option]
    ]
    assert wrong == []
    assert set(METAVARS) <= {option for _, option, _ in options()}


def test_an_option_of_one_name_means_one_thing():
    """Its help, without the default, is the same in every command; some commands take fewer kinds of models."""
    shared = ("--json", "--quiet", "--preset", "--runtime", "--protocol", "--bootstrap", "--camera", "--resize")
    shared += ("--score-threshold", "--nms-threshold", "--max-detections", "--no-close-ups")
    for option in shared:
        helps = {action.help.split("; default:")[0] for _, name, action in options() if name == option}
        assert len(helps) == 1, (option, helps)
    models = {action.help for _, name, action in options() if name == "--model"}
    assert models == {f"use this model instead of a preset: {kinds}" for kinds in (options_of.MODELS, "a .keras file")}


def test_options_are_words_with_dashes_and_have_help():
    for words, option, action in options():
        assert re.fullmatch(r"-h|--[a-z]+(-[a-z]+)*", option), (words, option)
        assert action.help or action.choices, (words, option)


def test_json_and_quiet_are_everywhere_but_where_they_mean_nothing():
    has = {option: {words for words, name, _ in options() if name == option} for option in ("--json", "--quiet")}
    assert set(COMMANDS) - has["--json"] == {("completion",)}  # prints a script
    # a script, and tables that take no time: their text is what they are for
    assert set(COMMANDS) - has["--quiet"] == {("completion",), ("export", "verify"), ("evaluate", "verification")}


def test_a_report_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "file").touch()
    code = cli.main(["inspect", str(tmp_path / "none"), "--json", str(tmp_path / "file" / "x.json")])
    assert (code, "can't be written" in capsys.readouterr().err) == (2, True)


def test_a_report_never_replaces_a_photo(tmp_path, capsys):
    assert cli.main(["inspect", str(tmp_path), "--json", "me.JPG"]) == 2
    assert "expects the name of a report. Received the name of a photo: me.JPG" in capsys.readouterr().err


def test_help_imports_no_large_package():
    code = (
        "import sys; from retinaface_tf.cli.main import build_parser; build_parser().format_help(); "
        "print(sorted({'numpy', 'PIL', 'tensorflow', 'keras', 'scipy', 'tqdm'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.skipif(sys.platform == "win32", reason="needs the times of child processes")
def test_help_takes_no_time():
    import resource

    def seconds(*words):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # not what others made it wait

    assert min(seconds("-m", "retinaface_tf", "detect", "--help") for _ in range(3)) < 0.15


def test_choices_are_those_of_the_library():
    from retinaface_tf.annotations import KINDS, read
    from retinaface_tf.evaluation import CORRUPTION_KINDS, PROTOCOL_NAMES, fddb, protocols, robustness
    from retinaface_tf.presets import names

    assert tuple(protocols.PROTOCOLS) == PROTOCOL_NAMES
    assert set(CORRUPTION_KINDS) == {one.kind for one in robustness.CORRUPTIONS} - {"none"}
    assert tuple(read.READERS) == KINDS
    assert options_of.preset_names() == names()
    assert fddb.FALSE_POSITIVES == 1000


def test_help_of_one_command_is_the_same_without_the_others():
    for words, parser in ALL.items():
        own = cli.build_parser([*words, "--help"])
        for word in words:
            own = children(own)[word]
        assert own.format_help() == parser.format_help()


def test_report_goes_where_it_is_asked_for(tmp_path, capsys):
    from argparse import Namespace

    from retinaface_tf.cli.output import report

    def said(**words):
        report(Namespace(**{"json": None, "quiet": False, **words}), {"faces": 1}, "one face")
        return capsys.readouterr().out

    path = tmp_path / "report.json"
    assert said() == "one face\n"
    assert json.loads(said(json="-")) == {"faces": 1}
    assert said(quiet=True) == ""
    assert said(json=str(path)) == "one face\n"
    assert json.loads(path.read_text()) == {"faces": 1}


@pytest.fixture(scope="module")
def completion():
    """A function of (words, the last one unfinished) that returns what bash offers."""
    pytest.importorskip("shtab")
    if not shutil.which("bash"):
        pytest.skip("needs bash")
    from contextlib import redirect_stdout
    from io import StringIO

    with redirect_stdout(StringIO()) as script:
        assert cli.main(["completion", "bash"]) == 0

    def complete(*words):
        ask = f"""
            COMP_WORDS=({" ".join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}; COMPREPLY=()
            name=$(complete -p retinaface-tf | sed 's/.*-F \\([^ ]*\\).*/\\1/')
            $name retinaface-tf; printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        result = subprocess.run(["bash", "-c", script.getvalue() + ask], capture_output=True, text=True)
        return result.stdout.split()

    return complete


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["retinaface-tf", "de"], ["detect"]),
        (["retinaface-tf", "export", "t"], ["tflite"]),
        (["retinaface-tf", "export", "tflite", "--quant"], ["--quantize"]),
        (["retinaface-tf", "export", "tflite", "--quantize", "f"], ["fp16"]),
        (["retinaface-tf", "train", "--preset", "resnet5"], ["resnet50"]),
        (["retinaface-tf", "completion", "z"], ["zsh"]),
    ],
)
def test_bash_completes(completion, words, offered):
    assert completion(*words) == offered


def test_bash_completes_photos(completion, tmp_path, monkeypatch):
    (tmp_path / "photo.jpg").touch()
    monkeypatch.chdir(tmp_path)
    assert completion("retinaface-tf", "detect", "ph") == ["photo.jpg"]


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_a_script(shell, capsys):
    pytest.importorskip("shtab")
    assert cli.main(["completion", shell]) == 0
    assert "retinaface-tf" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("what\nis wrong"), 2, "retinaface-tf: what is wrong\n"),
        (FileNotFoundError(2, "No such file or directory", "a.jpg"), 2, "retinaface-tf: a.jpg: No such file or"),
        (ImportError("x needs y"), 2, "retinaface-tf: x needs y\n"),
        (KeyboardInterrupt(), 130, "retinaface-tf: interrupted\n"),
    ],
)
def test_exit_codes(monkeypatch, capsys, error, code, line):
    def fail(args):
        raise error

    monkeypatch.setattr("retinaface_tf.cli.completion.run", fail)
    assert cli.main(["completion", "bash"]) == code
    assert capsys.readouterr().err.startswith(line)


SEVERAL = [
    pytest.param(parser, action, id=" ".join([*words, *action.option_strings[:1]]))
    for words, parser in COMMANDS.items()
    for action in parser._actions
    if action.option_strings and action.nargs in ("+", "*")
]


@pytest.mark.parametrize(("parser", "action"), SEVERAL)
def test_an_option_of_several_values_that_is_given_twice_keeps_all(parser, action):
    args = argparse.Namespace(**{action.dest: action.default})
    action(parser, args, ["a", "b"])
    action(parser, args, ["c"])
    assert getattr(args, action.dest) == ["a", "b", "c"]


def test_every_set_of_train_counts(capsys):
    words = ["--set", "epochs=7", "freeze.calibrate=8", "--set", "seed=3", "--set", "distill.weight=1"]
    assert cli.main(["train", "--preset", "mobilenet025", "--print-config", *words]) == 0
    config = json.loads(capsys.readouterr().out)
    found = [config["epochs"], config["freeze"]["calibrate"], config["seed"], config["distill"]["weight"]]
    assert found == [7, 8, 3, 1]


def test_a_result_replaces_no_file_that_the_command_reads(tmp_path, capsys, monkeypatch, sample_photo):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "model.tflite"):
        Path(name).write_bytes(sample_photo.read_bytes())
    Path("link").symlink_to("a.jpg")
    for words, line in (
        (["a.jpg", "--csv", "a.jpg"], "--csv expects the name of a report. Received the name of a photo: a.jpg"),
        (["a.jpg", "--json", "link"], "--json expects the name of a report. Received the name of a photo: link"),
        (["a.jpg", "--model", "model.tflite", "--csv", "./model.tflite"], "--csv would replace model.tflite, which"),
        (["a.jpg", "--json", "r", "--csv", "./r"], "--json and --csv name the same file, r. Give each its own"),
        (["a.jpg", "--json", "\0"], "'\\x00': no file can have this name"),
    ):
        assert cli.main(["detect", *words]) == 2
        assert line in capsys.readouterr().err
    assert {Path(name).read_bytes() for name in ("a.jpg", "model.tflite")} == {sample_photo.read_bytes()}
