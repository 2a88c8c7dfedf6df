import pytest
import yaml

from lit_dense.core.errors import UsageError
from lit_dense.core.yaml_files import RepeatedKeyError, load_yaml, read_config_file


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model: {loss: ghm}\ndata: {}\nmodel: {lr: 1}\n", "line 3: the key model was given in line 1 already"),
        ("data: {batch_size: 2, batch_size: 4}\n", "line 1: the key batch_size was given in line 1 already"),
        ("names:\n  0: cat\n  1: dog\n  1: bird\n", "line 4: the key 1 was given in line 3 already"),
        ("- a: 1\n  a: 2\n", "line 2: the key a was given in line 1 already"),
    ],
)
def test_load_yaml__a_repeated_key_is_an_error(text, told):
    with pytest.raises(RepeatedKeyError, match=f"^{told}$"):
        load_yaml(text)


def test_load_yaml__merged_keys_can_be_given_again():
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {d: {<<: [*b, *a], x: 5}}\ne: [{x: 1}, {x: 2}]\n"
    assert load_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a: 1\nb: 2\na: 3\n", r"c\.yaml, line 3: the key a was given in line 1 already; keep one of them"),
        (
            "a: 1\n# \u00e9".encode("latin-1"),
            r"c\.yaml: not UTF-8 text \(byte 0xe9 in line 2\); save the file as UTF-8",
        ),
        (b"model:\n  a: b: c\n", r"c\.yaml, line 2, column 7: not YAML: mapping values are not allowed here"),
        (b"a: \x01\n", r"c\.yaml: not YAML: .*special characters"),
        (b"", r"c\.yaml: not a configuration: the file is empty; write the sections"),
        (b"- a\n", r"c\.yaml: not a configuration: it holds no keys; write the sections"),
    ],
)
def test_read_config_file__faults_are_one_line(tmp_path, content, told):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=told) as error:
        read_config_file(path)
    assert "\n" not in str(error.value)


def test_read_config_file__a_folder_is_named_and_a_byte_order_mark_is_skipped(tmp_path):
    with pytest.raises(UsageError, match="the configuration cannot be read: Is a directory"):
        read_config_file(tmp_path)
    path = tmp_path / "c.yaml"
    path.write_text("\ufeffmodel: {lr: 1}\n", encoding="utf-8")
    assert read_config_file(path) == {"model": {"lr": 1}}
