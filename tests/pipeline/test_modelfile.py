"""The Modelfile: Ollama's template, run by Go's own text/template, gives the text of the chat template."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from tiny_llama import TEMPLATE

from data.prompts import LAYOUTS, SYSTEM, conversations
from data.sample.build import sample_documents
from data.schema import InputError
from pipeline.base_model import TINY
from pipeline.export.modelfile import go_template, render_chat, server_command, write_modelfile
from pipeline.model import pin_date

BOS = "<|begin_of_text|>"
OLLAMA = r"""
package main

import ("encoding/json"; "os"; "strings"; "text/template")

type Message struct { Role, Content string }

func main() {
	var asked struct { Template string; Messages []Message }
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil { panic(err) }
	var system []string  // ollama/template: system messages are joined, and stay among the messages
	for _, message := range asked.Messages { if message.Role == "system" { system = append(system, message.Content) } }
	values := map[string]any{"System": strings.Join(system, "\n\n"), "Messages": asked.Messages, "Response": ""}
	if err := template.Must(template.New("").Parse(asked.Template)).Execute(os.Stdout, values); err != nil { panic(err) }
}
"""


def test_the_template_is_readable():
    assert go_template(TEMPLATE, BOS) == (
        "<|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
        "{{ .System }}{{ range .Messages }}"
        '{{ if eq .Role "user" }}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n{{ .Content }}'
        '{{ else if eq .Role "assistant" }}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{{ .Content }}'
        "{{ end }}{{ end }}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def llama_3_2_template() -> str:
    trl = pytest.importorskip("trl", reason="Llama 3.2's own template is read from trl")
    return pin_date((Path(trl.__file__).parent / "chat_templates" / "llama3_2.jinja").read_text(encoding="utf-8"))


def test_llama_3_2s_own_template_gives_the_same():
    assert go_template(llama_3_2_template(), BOS) == go_template(TEMPLATE, BOS)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("go"), reason="Go, whose text/template Ollama uses, is absent")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_go_renders_every_turn_as_training_did(layout, tmp_path):
    (tmp_path / "main.go").write_text(OLLAMA)
    environment = {**os.environ, "GOCACHE": str(tmp_path / "cache"), "GO111MODULE": "off"}
    subprocess.run(["go", "build", "-o", "render", "main.go"], cwd=tmp_path, env=environment, check=True)
    for chat_template in (llama_3_2_template(), (TINY / "chat_template.jinja").read_text(encoding="utf-8")):
        template = go_template(chat_template, BOS)
        for chat in [chat for document in sample_documents(5) for chat in conversations(document, layout)]:
            for end in range(2, len(chat), 2):  # every prompt of the chat, its earlier answers included
                asked = json.dumps({"Template": template, "Messages": chat[:end]})
                given = subprocess.run([tmp_path / "render"], input=asked, capture_output=True, text=True, check=True)
                assert BOS + given.stdout == render_chat(chat_template, chat[:end], BOS)


@pytest.mark.parametrize(
    ("chat_template", "message"),
    [
        ("{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}{% endif %}{% endfor %}", "leaves out a message"),
        ("{% for m in messages %}{{ loop.index }}{{ m.content }}{% endfor %}", "first turn unlike later ones"),
    ],
)
def test_templates_that_ollama_cannot_follow_are_refused(chat_template, message):
    with pytest.raises(InputError, match=message):
        go_template(chat_template, BOS)


def test_the_files(tmp_path):
    path = write_modelfile(
        tmp_path / "run.q8_0.gguf",
        tmp_path / "Modelfile",
        system=SYSTEM,
        chat_template=TEMPLATE,
        bos=BOS,
        stop=["<|eot_id|>", "<|end_of_text|>"],
        context=4096,
        answer_tokens=256,
    )
    text = path.read_text(encoding="utf-8")
    assert "\nFROM ./run.q8_0.gguf\n" in text
    assert f'\nSYSTEM """{SYSTEM}"""\n' in text
    assert f'\nTEMPLATE """{go_template(TEMPLATE, BOS)}"""\n' in text
    for line in ("temperature 0", "repeat_penalty 1.0", "num_ctx 4096", "num_predict 256", 'stop "<|eot_id|>"'):
        assert f"\nPARAMETER {line}\n" in text
    assert json.loads((tmp_path / "params").read_text())["stop"] == ["<|eot_id|>", "<|end_of_text|>"]
    assert (tmp_path / "system").read_text(encoding="utf-8") == SYSTEM
    assert (tmp_path / "template").read_text(encoding="utf-8") == go_template(TEMPLATE, BOS)


def test_the_server_command():
    assert server_command("my run.gguf", 4096, 256) == (
        "llama-server --model 'my run.gguf' --jinja --ctx-size 4096 --predict 256 "
        "--temp 0 --top-k 1 --repeat-penalty 1.0 --seed 0"
    )
    assert shlex.split(server_command("my run.gguf", 4096, 256))[2] == "my run.gguf"
