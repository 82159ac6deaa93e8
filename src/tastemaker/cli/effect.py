"""Options that only matter together with another: alone they are refused by name, and not passed over in silence."""

from __future__ import annotations

import typer

from tastemaker.errors import ConfigurationError


def refuse_without_effect(context: typer.Context, **needs: tuple[bool, str]) -> None:
    """Refuse options that a person gave and that change nothing here.

    Args:
        context: Of the command that runs.
        needs: For each option, by the name of its parameter: whether it has an effect, and how the sentence goes on
            that begins with "--grid has no effect", such as "without --as pdf".

    Raises:
        ConfigurationError: One has no effect.
    """
    for option in context.command.params:
        has_effect, why = needs.get(option.name or "", (True, ""))
        source = context.get_parameter_source(option.name or "")
        if not has_effect and source is not None and source.name == "COMMANDLINE":
            raise ConfigurationError(f"{max(option.opts, key=len)} has no effect {why}")
