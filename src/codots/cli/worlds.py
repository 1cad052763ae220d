"""Commands for domains: domains, check, export, baselines, play."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from codots.cli.app import AsJson, Base, Id, Packs, Size, SomePreset, Split, Workers, app, expanded, show
from codots.cli.shell_completion import completing, domains, found_domain, import_from_here, policies


@app.command("domains")
def list_domains(as_json: AsJson = False) -> None:
    """List the domains: presets, styles, what is hidden, and what must be set up before a preset can be used."""
    from dataclasses import asdict

    from codots.cli.display import domains_table
    from codots.domains.catalog import by_reason, catalog
    from codots.domains.registry import bridges

    entries = catalog()
    if as_json:
        return typer.echo(json.dumps([asdict(entry) for entry in entries], indent=2))
    show(domains_table(entries))
    for entry in entries:
        if entry.lacks:
            typer.echo(f"{entry.id} lacks {by_reason(entry.lacks)}")
    for family, bridge in bridges().items():
        typer.echo(f"{family}:NAME is an external benchmark, such as {bridge.example}: pip install {bridge.extra!r}")


@app.command()
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID...]",
            help="Ids, or module:Class for domains that are not installed.",
            show_default=False,
            autocompletion=completing(domains),
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Check every installed domain.")] = False,
    packs: Packs = 32,
    size: Size = 4,
    workers: Workers = 2,
) -> None:
    """Check domains against their contract in every preset and style; stop at the first violation."""
    from codots.cli.display import counting
    from codots.domains.catalog import by_reason
    from codots.domains.check import check_domains
    from codots.domains.registry import domain_ids

    if bool(names) == every:
        raise typer.BadParameter("expected one or more ids, module:Class, or --all")
    import_from_here()
    with counting("checking", together=True) as on_progress:
        checked = check_domains(domain_ids() if every else names or [], packs, size, workers, on_progress)
    for id in dict.fromkeys(found.id for found in checked):
        passed = [found for found in checked if found.id == id and not found.lacks]
        skipped = by_reason({found.preset: found.lacks for found in checked if found.id == id and found.lacks})
        presets = f"{len(passed)} preset{'s' * (len(passed) != 1)}"
        summary = f"{presets}, prompts of up to {max((found.longest for found in passed), default=0):,} characters"
        seconds = sum(found.seconds for found in passed)
        typer.echo(f"{id} passes the check: {summary}, {seconds:.1f} s" + (f"; skipped {skipped}" if skipped else ""))


@app.command("export")
def run_export(
    ctx: typer.Context,
    id: Annotated[
        str,
        typer.Argument(
            metavar="ID|ROWS",
            help="Versioned id of a domain, or module:Class; or the file of an evaluation, or the folder of a suite.",
            autocompletion=completing(domains),
            callback=found_domain,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Output file: .parquet or .jsonl; a new folder with --as inspect.",
            callback=expanded,
            show_default=False,
        ),
    ],
    preset: SomePreset = None,
    split: Split = "train",
    packs: Annotated[int, typer.Option(min=1, help="Number of packs.")] = 100,
    size: Size = 4,
    style: Annotated[
        str | None, typer.Option(help="Prompt style; the default is the first style of the domain.")
    ] = None,
    lives: Annotated[
        str | None,
        typer.Option(
            metavar="TEACHER",
            help="Export the lives of a teacher as chats, one per episode: format, literate or skilled.",
            show_default=False,
        ),
    ] = None,
    given: Annotated[
        float, typer.Option(min=0, max=1, help="Fraction of the lives that are given the true context.")
    ] = 0.6,
    layout: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="Layout: tasks; chat for lives; for an evaluation, episodes or inspect (logs of inspect_ai).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Export worlds and tasks as rows: prompts, floor, ceiling, and hidden facts in a separate column.

    With --lives, export lessons as chats instead, for any trainer that reads messages. For the file of an evaluation,
    export its episodes as rows, or its arms as logs of inspect_ai.
    """
    if id.endswith(".jsonl") or ("/" in id and ":" not in id) or (Path(id).is_dir() and id not in domains()):
        return _export_evaluations(ctx, Path(id), out, layout)
    from codots.cli.display import counting
    from codots.core.suggest import check_known
    from codots.domains.export import check_out, task_rows, write_rows
    from codots.domains.registry import first_preset

    check_known(layout or "tasks", ("tasks", "chat"), "layout of rows")
    if (layout or "tasks") != ("chat" if lives else "tasks") and layout is not None:
        expected = "--as chat with --lives" if lives else "--lives TEACHER with --as chat"
        raise typer.BadParameter(f"--as is {layout!r}; expected {expected}")
    check_out(out)
    rows, preset, what = [], preset or first_preset(id), "episodes" if lives else "tasks"
    if lives:
        from codots.config.imitate import ImitateConfig
        from codots.config.load import settings
        from codots.training.chat import chat_rows

        if split != "train":
            raise typer.BadParameter(f"--split is {split!r}; lessons are of the split train")
        lesson = {"domain": id, "preset": preset, "pack_size": size, "packs_per_step": packs, "given": given}
        found = chat_rows(settings(ImitateConfig, lesson | {"teacher": lives}, [], "export"), style)
    else:
        found = task_rows(id, preset=preset, split=split, packs=packs, size=size, style=style)
    with counting("exporting") as on_progress:
        for row in found:
            rows.append(row)
            on_progress("packs", row["index"] + 1, packs)
    write_rows(rows, out)
    typer.echo(f"wrote {len(rows)} {what} of {packs} packs to {out}")


def _export_evaluations(ctx: typer.Context, path: Path, out: Path, layout: str | None) -> None:
    from codots.core.suggest import check_known
    from codots.domains.export import check_out, write_rows
    from codots.evaluation import inspect_log
    from codots.evaluation.export import TYPES, episode_rows, read_evaluations

    for name in ctx.params.keys() - {"id", "out", "layout"}:
        if (source := ctx.get_parameter_source(name)) and source.name != "DEFAULT":
            raise typer.BadParameter(f"--{name.replace('_', '-')} is for domains; {path} is an evaluation")
    check_known(layout or "episodes", ("episodes", "inspect"), "layout of an evaluation")
    if layout == "inspect":
        inspect_log.check_out(out)
        count = inspect_log.write_logs(read_evaluations(path), out)
        return typer.echo(f"wrote {count} logs to {out}; inspect view --log-dir {out}")
    check_out(out)
    if out.exists():
        raise ValueError(f"{out} exists; remove it, or give --out ANOTHER")
    rows = list(episode_rows(read_evaluations(path)))
    write_rows(rows, out, TYPES)
    typer.echo(f"wrote {len(rows)} episodes to {out}")


@app.command("baselines")
def run_baselines(
    id: Id,
    preset: SomePreset = None,
    packs: Packs = 500,
    size: Size = 4,
    split: Split = "dev",
    as_json: AsJson = False,
) -> None:
    """Evaluate scripted policies: random, bayes (never sees the hidden rule) and informed (sees the hidden rule)."""
    from codots.cli.display import counting, plain_table
    from codots.domains.registry import first_preset
    from codots.evaluation.evaluate import POLICIES, baselines

    preset = preset or first_preset(id)
    with counting("playing") as on_progress:
        found = baselines(id, preset=preset, packs=packs, size=size, split=split, on_progress=on_progress)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        exact = "exact" if found["exact"] else "an adaptive scripted policy"
        show(plain_table(f"{id} {preset} {split}, {packs} packs; bayes is {exact}", {n: found[n] for n in POLICIES}))


@app.command("play")
def run_play(
    id: Id,
    preset: SomePreset = None,
    split: Split = "dev",
    index: Annotated[int, typer.Option(min=0, help="Index of the pack.")] = 0,
    size: Size = 4,
    policy: Annotated[
        str | None,
        typer.Option(help="Watch a scripted policy: random, bayes or informed.", autocompletion=completing(policies)),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Watch a model: model folder, run folder, LoRA adapter, org/name on the Hugging Face hub, base (the "
            "bundled tiny model) or openai:NAME.",
            show_default=False,
        ),
    ] = None,
    base: Base = None,
) -> None:
    """Play a pack yourself: solve the tasks, and write your own notes between them."""
    from codots.cli.play import play, watch
    from codots.domains.registry import first_preset, make_pack

    pack = make_pack(id, preset or first_preset(id), split, index, size)
    if model is None:
        play(pack, policy)
        return
    if policy is not None:
        raise typer.BadParameter("expected --policy or --model, not both")
    for part in watch(model, pack, base=base):
        typer.echo(f"\n{part}")
