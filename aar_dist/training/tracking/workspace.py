"""The panels as a saved workspace of a W&B project; needs wandb-workspaces (``pip install 'aar_dist[dashboard]'``)."""

import warnings
from typing import Any

from aar_dist.base.errors import ConfigError, one_line
from aar_dist.training.tracking.mirror import TrackingError, default_entity
from aar_dist.training.tracking.panels import PICTURE, SECTIONS, TABLE, Panel, Section, regex

NAME = "aar_dist runs"


def save_workspace(project: str, entity: str | None) -> str:
    """Save the workspace; returns its address. Raises ``ConfigError`` without the package, ``TrackingError``.

    Args:
        entity: None for the account's own.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # the package's own affairs
            import wandb_workspaces.reports.v2 as blocks
            import wandb_workspaces.workspaces as workspaces
    except ModuleNotFoundError:
        raise ConfigError("wandb-workspaces is not installed: pip install 'aar_dist[dashboard]'") from None
    sections = [_section(one, workspaces, blocks) for one in SECTIONS]
    shown = [blocks.MediaBrowser(media_keys=[PICTURE], num_columns=1), blocks.WeavePanelSummaryTable(table_name=TABLE)]
    sections.append(workspaces.Section(name="Reconstructions", panels=shown, is_open=True))
    try:
        made = workspaces.Workspace(entity=entity or default_entity(), project=project, name=NAME, sections=sections)
        made.save()
    except Exception as error:
        raise TrackingError(f"W&B did not save the workspace: {one_line(error)[:200]}") from error
    return str(made.url)


def _section(section: Section, workspaces: Any, blocks: Any) -> Any:
    panels = [_panel(one, blocks) for one in section.panels]
    return workspaces.Section(name=section.title, panels=panels, is_open=True)


def _panel(panel: Panel, blocks: Any) -> Any:
    wild = any("*" in key for key in panel.keys)
    which = {"metric_regex": "|".join(f"^{regex(key)}$" for key in panel.keys)} if wild else {"y": list(panel.keys)}
    return blocks.LinePlot(title=panel.title, x="Step", log_y=panel.log or None, **which)
