"""The command that tries a model: a conversation with one, or with two side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagster_project.command_line.terminal import main, own_documents, refuse, set_variables
from dagster_project.settings import warehouse
from nift_assets import environment, studies
from nift_assets.near_names import near
from nift_assets.rows import Model, Server
from nift_assets.store import Store
from nift_assets.study import Study

if TYPE_CHECKING:
    from nift_training.chat.speaker import SpeakerSource
    from nift_training.evaluate.serving import ModelServer
    from nift_training.templates import OneShotExample


@main.command()
@click.argument("models", nargs=-1, metavar="MODEL [MODEL]")
@click.option("--template", help="Of a model that is no row of the study: how it is asked (zephyr, llama-3, …).")
@click.option("--revision", help="The commit of a Hub id (default: the one it is at now).")
@click.option("--example", type=click.Path(path_type=Path), help="one_shot's question and answer, a JSON file.")
@click.option(
    "--server", "--base-url", "server", help="An OpenAI-compatible server that answers: http://localhost:8000/v1."
)
@click.option("--server-model", help="What the server calls the model (default: as it is called here).")
@click.option("--server-key-variable", help="The environment variable with the server's key.")
@click.option("--system", help="A message to the system.")
@click.option("--temperature", type=float, default=0.7, show_default=True, help="0 takes the likeliest token always.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=1024, show_default=True, help="Of one answer.")
@click.option("--seed", type=int, help="The same draws each time (default: others).")
@click.option("--once", help="Ask this alone, and end.")
@click.option("--raw", is_flag=True, help="Show on standard error what the models are sent, to the letter.")
@own_documents
def chat(
    models: tuple[str, ...],
    template: str | None,
    revision: str | None,
    example: Path | None,
    server: str | None,
    server_model: str | None,
    server_key_variable: str | None,
    system: str | None,
    temperature: float,
    max_new_tokens: int,
    seed: int | None,
    once: str | None,
    raw: bool,
    corpus: str | None,
    text_column: str | None,
    documents: str | None,
) -> None:
    """Talk with a model of the active study, or with two side by side; MODEL may also be a folder or a Hub id.

    \b
    nift chat pico                          asked in its row's template, as evaluation asks it
    nift chat pico pico.original.lora       the same questions to both
    nift chat models/zephyr --template zephyr
    echo "What is a fog horn?" | nift chat pico
    """
    set_variables(NIFT_CORPUS=corpus, NIFT_TEXT_COLUMN=text_column, NIFT_DOCUMENTS=documents)
    try:
        from nift_training import templates
        from nift_training.chat import __main__ as chatting
        from nift_training.chat import conversation
        from nift_training.evaluate.serving import ModelServer

        conversation.temperature(str(temperature))
        study = studies.active()
        names = [row.name for row in study.models]
        if not 1 <= len(models) <= 2:
            raise ValueError(f"name one model, or two to see side by side: {', '.join(names) or 'a folder or Hub id'}")
        others = [name for name in models if name not in names]
        if (template or revision or example) and not others:
            raise ValueError(
                f"{models[0]} is a row of the study {study.name}, which says how it is asked: leave --template, "
                "--revision and --example out, or name a folder"
            )
        shown = templates.read_example(example) if example else None
        sources = []
        for name in models:
            asked = server and ModelServer(url=server, model=server_model or name, key_variable=server_key_variable)
            if name in names:
                sources.append(_of_row(study, study.model(name), asked or None))
            else:
                sources.append(_of_folder(name, names, template, revision, shown, asked or None))
        settings = conversation.ChatSettings(
            temperature=temperature, max_new_tokens=max_new_tokens, seed=seed, system=system
        )
        chatting.run(sources, settings, once=once, show_raw=raw, threads=_threads(study, models))
    except (ValueError, OSError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        refuse("stopped")


def _of_row(study: Study, row: Model, asked: ModelServer | None) -> SpeakerSource:
    """The model of a row from the weights that are stored, or from its server; ValueError where they are not there."""
    from nift_training import templates
    from nift_training.chat.speaker import SpeakerSource

    backbone = study.backbone(row.backbone)
    store = Store(root=warehouse(), study=study.name)
    server = asked or _server(row)
    adapter = None
    if server is None:
        folder = _folder(store, "merged_models", row.name)
    else:
        folder = _folder(store, "backbones", row.backbone)  # a server is asked in prompts, which its tokenizer shapes
        adapter = row.adapter and _folder(store, "lora_adapters", row.adapter)
    return SpeakerSource(
        name=row.name,
        model=folder,
        template=backbone.template,
        example=templates.read_example(Path(backbone.example)) if backbone.example else None,
        server=server,
        adapter=adapter or None,
    )


def _folder(store: Store, table: str, key: str) -> Path:
    """The folder of weights that a table names for a row."""
    stored = store.find(table, key, ["folder"])
    if stored is None:
        raise ValueError(f"{key} has not been made: nift run {table} --partition {key}")
    folder = store.folder(str(stored["folder"][0]))
    if not folder.exists():
        raise ValueError(
            f"the weights of {key} are not kept after its evaluation, as its row says: merge them again with python -m "
            "nift_training.merge, and name that folder with --template"
        )
    return folder


def _server(row: Model) -> ModelServer | None:
    """The server that answers for a row: its own, or `NIFT_SERVER`."""
    from nift_training.evaluate.serving import ModelServer

    server = row.server
    if server is None and (url := environment.server()):
        server = Server(url=url, name=row.name, key_variable=environment.server_key_variable())
    if server is None:
        return None
    return ModelServer(url=server.url, model=server.name, key_variable=server.key_variable)


def _of_folder(
    name: str,
    names: list[str],
    template: str | None,
    revision: str | None,
    example: OneShotExample | None,
    server: ModelServer | None,
) -> SpeakerSource:
    from nift_training import templates
    from nift_training.chat.speaker import HUB_ID, SpeakerSource

    here = Path(name).is_dir()
    if not here and not HUB_ID.fullmatch(name):
        hint = near(name, names) or f"; it has {', '.join(names) or 'none'}"
        raise ValueError(f"the study has no model {name!r}, and there is no such folder{hint}")
    if template is None:
        raise ValueError(f"how is {name} asked? Give --template, one of {', '.join(templates.TEMPLATES)}")
    return SpeakerSource(
        name=name,
        model=name,
        revision=None if here else revision,
        template=template,
        example=example,
        server=server,
    )


def _threads(study: Study, models: tuple[str, ...]) -> int | None:
    """The threads that the rows of the models are run with, so that their answers repeat; None for all cores."""
    rows = [study.model(name) for name in models if name in [row.name for row in study.models]]
    return next((threads for row in rows if (threads := study.backbone(row.backbone).threads)), None)
