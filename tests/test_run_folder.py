"""A folder belongs to one run: other settings are refused, and so are results of unknown ones."""

import os

import pytest

from retinaface_tf.common.run_folder import begin_or_resume, only_process

SETTINGS = {"model": "a", "resize": (3, 4), "schedule": {"rate": 0.1, "epochs": 5}}


def test_the_same_settings_resume(tmp_path):
    assert [begin_or_resume(tmp_path / "run", SETTINGS) for _ in range(2)] == [False, True]


def test_other_settings_are_refused_with_their_names(tmp_path):
    begin_or_resume(tmp_path, SETTINGS)
    other = {**SETTINGS, "schedule": {"rate": 0.2, "epochs": 5}}
    with pytest.raises(ValueError, match=r"another run: schedule\.rate was 0\.1, now 0\.2\. Choose another folder"):
        begin_or_resume(tmp_path, other)
    with pytest.raises(ValueError, match=r"model was 'a', now None \(and 1 more\)"):
        begin_or_resume(tmp_path, {"resize": [3, 4], "schedule": SETTINGS["schedule"], "seed": 1})


def test_what_may_change_is_kept_anew(tmp_path):
    begin_or_resume(tmp_path, SETTINGS)
    longer = {**SETTINGS, "schedule": {"rate": 0.1, "epochs": 9}}
    assert begin_or_resume(tmp_path, longer, may_change=["schedule.epochs"])
    assert begin_or_resume(tmp_path, longer)
    assert begin_or_resume(tmp_path, SETTINGS, may_change=["schedule"])


def test_a_start_without_results_binds_nobody_where_the_caller_knows(tmp_path):
    begin_or_resume(tmp_path, {"model": "a"})
    assert not begin_or_resume(tmp_path, {"model": "b"}, has_results=False)
    with pytest.raises(ValueError, match="model was 'b', now 'a'"):
        begin_or_resume(tmp_path, {"model": "a"}, has_results=True)


def test_results_of_unknown_settings_and_damaged_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"contains results, but not run\.json"):
        begin_or_resume(tmp_path, SETTINGS, has_results=True)
    (tmp_path / "run.json").write_text("3")
    with pytest.raises(ValueError, match=r"run\.json: the content must be an object. Received: 3"):
        begin_or_resume(tmp_path, SETTINGS)


def test_what_an_older_file_lacks_is_written_on_resuming(tmp_path):
    def begin(runtime):
        begin_or_resume(tmp_path, {"a": 1, "runtime": runtime}, complete=lambda old: {"runtime": runtime, **old})

    begin_or_resume(tmp_path, {"a": 1})
    begin("keras")
    with pytest.raises(ValueError, match="runtime was 'keras', now 'litert'"):
        begin("litert")


@pytest.mark.skipif(os.name != "posix", reason="locks of Unix")
def test_two_processes_do_not_write_into_one_run(tmp_path):
    with only_process(tmp_path):
        with pytest.raises(ValueError, match="another process is writing into it"), only_process(tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []
    with only_process(tmp_path):
        pass
