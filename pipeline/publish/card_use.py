"""The model card's commands and code, which run as printed; its limits and its licence."""

from __future__ import annotations

import json
from dataclasses import dataclass

from data.prompts import ASKED, Layout, order_tasks, render_next_prompt, render_prompt
from data.schema import TASKS
from pipeline.export.modelfile import server_command
from pipeline.export.names import llama_version

TITLE = "Tremor under lithium"
TEXT = "Two patients treated with lithium developed tremor. Propranolol relieved it."
RANKS = (8, 16, 32, 64, 128, 256, 512)  # that vLLM takes
LIMITS = """\
- English abstracts of biomedical articles. Full texts, clinical notes and other languages were neither trained on nor measured.
- It lists names as the article writes them: no identifiers, no offsets, no negation, no certainty.
"""
LIMITS_OF_RELATIONS = """\
- A listed pair says that the article links the two, as its annotators understood it; not that the drug causes the disease.
- Relations are found far less reliably than names: see the table.
"""
LIMITS_OF_ASKING = """\
- Text inside an article that looks like an instruction may be followed. Treat what it lists as data from an untrusted source.
- It must be asked as it was trained: the system prompt, the question's wording and the chat template, date included."""


@dataclass(frozen=True)
class Shipped:
    """What is published and how it is asked. Without `repo`, paths are the run folder's, as seen from it."""

    repo: str | None
    base: str
    rank: int
    layout: Layout
    system: str
    answer_tokens: int
    context: int
    gguf: str | None = None
    taught: tuple[str, ...] = TASKS

    @property
    def adapter(self) -> str:
        return self.repo or "./adapter"

    @property
    def tasks(self) -> tuple[str, ...]:
        """In the order in which they are asked."""
        return order_tasks(self.taught, self.layout)

    @property
    def conversation(self) -> bool:
        return self.layout != "separate"


def render_use(shipped: Shipped) -> str:
    """Code that asks what it was taught, for transformers, llama.cpp, Ollama and vLLM; for GGUF files where there are some."""
    number = ("no question", "one question", "two questions", "three questions")[len(shipped.tasks)]
    if len(shipped.tasks) < 2:
        how = f"It was taught {number}."
    elif shipped.conversation:
        how = f"It reads the article once and answers {number} in turn within one conversation, in this order."
    else:
        how = f"Each of the {number} is a conversation of its own."
    pair = "a relation is `chemical | disease`, " if "relations" in shipped.tasks else ""
    parts = [f"{how} Each answer is a list, one item a line; {pair}an empty list is a lone `-`."]
    parts += [use_transformers(shipped), *([use_llama_cpp(shipped), use_ollama(shipped)] if shipped.gguf else [])]
    return "\n\n".join([*parts, use_vllm(shipped)])


def use_transformers(shipped: Shipped) -> str:
    """Python that answers by transformers and PEFT."""
    embedded = shipped.base == "tiny"  # in the medner package
    imported = "from pipeline.base_model import TINY\n" if embedded else ""
    base = "TINY" if embedded else f"{json.dumps(shipped.base)}"
    code = f"""from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
{imported}
{write_questions(shipped)}
tokenizer = AutoTokenizer.from_pretrained({json.dumps(shipped.adapter)})
model = AutoModelForCausalLM.from_pretrained({base}, dtype="auto", device_map="auto")
model = PeftModel.from_pretrained(model, {json.dumps(shipped.adapter)})
for task, question in questions.items():
    {write_turn(shipped)}
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    inputs = inputs.to(model.device)
    ids = model.generate(**inputs, max_new_tokens={shipped.answer_tokens}, do_sample=False)
    answer = tokenizer.decode(ids[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
    {write_answer(shipped)}"""
    return f"**transformers and PEFT**:\n\n{fence('python', code)}"


def use_llama_cpp(shipped: Shipped) -> str:
    """The command that serves the GGUF file by llama.cpp, and Python that asks it."""
    command = server_command(local_gguf(shipped), shipped.context, shipped.answer_tokens)
    lines = [*download_command(shipped, shipped.gguf), command]
    return f"**llama.cpp**:\n\n{fence('sh', *lines)}\n\n{fence('python', write_client(shipped, 8080, 'medner'))}"


def use_ollama(shipped: Shipped) -> str:
    """The commands that serve the GGUF file by Ollama, and Python or a conversation by hand that asks it."""
    lines = [
        *download_command(shipped, shipped.gguf, "Modelfile"),
        "ollama create medner -f " + ("" if shipped.repo else "export/") + "Modelfile",
    ]
    between = (
        "Then, in the same conversation, " if shipped.conversation else "Between two questions type `/clear`. The others: "
    )
    article = f"{TITLE}\n{TEXT}"
    later = [render_next_prompt(task) if shipped.conversation else render_prompt(article, task) for task in shipped.tasks[1:]]
    typed = [typed_in(render_prompt(article, shipped.tasks[0])), *([between.rstrip()] if later else []), *map(typed_in, later)]
    return "\n\n".join(
        [
            f"**Ollama**:\n\n{fence('sh', *lines)}",
            fence("python", write_client(shipped, 11434, "medner")),
            "Or by hand: `ollama run medner`, and type, with the triple quotes:",
            *typed,
        ]
    )


def typed_in(question: str) -> str:
    """A question in the triple quotes that Ollama takes for several lines."""
    return fence("text", f'"""{question}"""')


def use_vllm(shipped: Shipped) -> str:
    """The command that serves base and adapter by vLLM, and Python that asks it."""
    rank = next((rank for rank in RANKS if rank >= shipped.rank), shipped.rank)
    base = shipped.base if shipped.base != "tiny" else "$(python -c 'from pipeline.base_model import TINY; print(TINY)')"
    command = (
        f"vllm serve {base} --tokenizer {shipped.adapter} --enable-lora "
        f"--lora-modules medner={shipped.adapter} --max-lora-rank {rank}"
    )
    return f"**vLLM**:\n\n{fence('sh', command)}\n\n{fence('python', write_client(shipped, 8000, 'medner'))}"


def write_client(shipped: Shipped, port: int, model: str) -> str:
    """Python, of the standard library alone, that asks a server on this machine."""
    return f"""import json
from urllib.request import Request, urlopen

server = "http://localhost:{port}/v1/chat/completions"
{write_questions(shipped)}
for task, question in questions.items():
    {write_turn(shipped)}
    body = {{"model": "{model}", "messages": messages, "temperature": 0, "max_tokens": {shipped.answer_tokens}}}
    request = Request(server, json.dumps(body).encode(), {{"Content-Type": "application/json"}})
    with urlopen(request) as response:
        answer = json.load(response)["choices"][0]["message"]["content"]
    {write_answer(shipped)}"""


def write_questions(shipped: Shipped) -> str:
    """Python that sets `article`, `questions` by task, and `system` or, for one conversation, the `messages` it begins with."""
    lines = ['article = """' + f'{TITLE}\n{TEXT}"""  # the title, a line break, the abstract', "questions = {"]
    for task in shipped.tasks:
        first = not shipped.conversation or task == shipped.tasks[0]
        before, _, after = (render_prompt("\0", task) if first else render_next_prompt(task)).partition("\0")
        text = f"{in_python(before)} + article + {in_python(after)}" if first else in_python(before)
        lines.append(f"    {in_python(ASKED[task])}: {text},")
    lines.append("}")
    lines.append(f'system = {{"role": "system", "content": {in_python(shipped.system)}}}')
    return "\n".join([*lines, *(["messages = [system]"] if shipped.conversation else [])])


def write_turn(shipped: Shipped) -> str:
    """The line of Python that asks the next question: in the same conversation, or in a new one."""
    turn = '{"role": "user", "content": question}'
    return f"messages.append({turn})" if shipped.conversation else f"messages = [system, {turn}]"


def write_answer(shipped: Shipped) -> str:
    """The line of Python that prints an answer and, in one conversation, keeps it."""
    kept = '\n    messages.append({"role": "assistant", "content": answer})' if shipped.conversation else ""
    return f'print(task, answer, sep="\\n", end="\\n\\n"){kept}'


def in_python(text: str) -> str:
    """A text as Python writes it in code."""
    return json.dumps(text, ensure_ascii=False)


def fence(language: str, *lines: str) -> str:
    """Lines as a block of code in Markdown."""
    return f"```{language}\n" + "\n".join(lines) + "\n```"


def download_command(shipped: Shipped, *files: str | None) -> list[str]:
    """The command that fetches files of the repository; none for a run that has not been pushed."""
    return [f"hf download {shipped.repo} {' '.join(filter(None, files))} --local-dir ."] if shipped.repo else []


def local_gguf(shipped: Shipped) -> str:
    """The GGUF file's path after the download, or in the run folder."""
    return ("" if shipped.repo else "export/") + (shipped.gguf or "")


def render_limits(tasks: tuple[str, ...]) -> str:
    """What the model was not made for, and what must be known of its answers to the tasks it was taught."""
    return LIMITS + (LIMITS_OF_RELATIONS if "relations" in tasks else "") + LIMITS_OF_ASKING


def render_licence(base: str) -> str:
    """What the base's licence asks of whoever passes the model on."""
    data = "The training data have terms of their own."
    version = llama_version(base)
    if not version:
        return f"The licence of the base, `{base}`, applies to the merged and GGUF files. {data}"
    policy = f"https://www.llama.com/llama{version.replace('.', '_')}/use-policy"
    return (
        f"Built with Llama. Llama {version} is licensed under the Llama {version} Community License, Copyright © Meta "
        "Platforms, Inc. All Rights Reserved. Whoever passes this model on, or one made from it, passes that licence and this "
        'notice on with it, shows "Built with Llama", begins the model\'s name with "Llama", and follows the Acceptable Use '
        f"Policy ({policy}). {data}"
    )
