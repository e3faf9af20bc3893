"""Images of what the networks do, drawn at every validation: PNG files in the run folder, and in TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.seed import isolate_rng

from come_nav.core.files import atomic_path
from come_nav.training.data.bank import WindowBatch
from come_nav.training.tasks.autoencoder import AutoencoderTask
from come_nav.training.tasks.denoiser import DenoiserTask
from come_nav.world_model.autoencoders.autoencoder import ImageAutoencoder
from come_nav.world_model.images import bytes_from_images
from come_nav.world_model.sampling.sampler import sample
from come_nav.world_model.sampling.settings import SamplerSettings

ROWS = 4
GOALS = 2
GAP_PX = 2
SEED = 5


class SampleImages(Callback):
    """Draws the first held-out batch of every validation, with the averaged weights; changes no random state.

    Autoencoder: truth and reconstruction. Denoiser: the context, then truth and imagined view of some of its goals.

    Args:
        folder: the images go there as ``<step>.png``.
        autoencoder: decodes the denoiser's latents; not needed for the autoencoder's own stage.
        sampler: as the exported model will sample.
    """

    def __init__(
        self, folder: Path, autoencoder: ImageAutoencoder | None = None, sampler: SamplerSettings | None = None
    ) -> None:
        self.folder, self.autoencoder, self.sampler = folder, autoencoder, sampler or SamplerSettings()

    def on_validation_batch_end(  # here validation runs, so the averaged weights are in place
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw and write the image of the first batch."""
        if batch_idx or not trainer.is_global_zero:
            return
        with isolate_rng(), trainer.precision_plugin.forward_context():
            table = self.draw(pl_module, batch)
        image = contact_sheet(table)
        write_png(self.folder / f"{trainer.global_step:07d}.png", image)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples", image, trainer.global_step, dataformats="HWC")

    @torch.no_grad()
    def draw(self, task: pl.LightningModule, batch: Any) -> torch.Tensor:
        """Return a table of images (rows, columns, 3, H, W) in [-1, 1]."""
        if isinstance(task, AutoencoderTask):
            images = batch[: ROWS * GOALS]
            decoded = task.autoencoder.decode(task.autoencoder.encode(images))
            return torch.stack([images, decoded], dim=1)
        assert isinstance(task, DenoiserTask)
        assert self.autoencoder is not None
        return draw_windows(task, self.autoencoder.to(task.device), batch, self.sampler)


def draw_windows(
    task: DenoiserTask, autoencoder: ImageAutoencoder, batch: WindowBatch, sampler: SamplerSettings
) -> torch.Tensor:
    """Return context, truth and imagined view of each goal for the first contexts: (rows, T + 2 G, 3, H, W)."""
    few = first_of(batch, ROWS, GOALS)
    rows, goals = few.goal_latents.shape[:2]
    context, actions, times = task.condition(few)
    imagined = sample(
        lambda x_t, t: task.expert.eps(x_t, t, context, actions, times),
        tuple(few.goal_latents.flatten(0, 1).shape),
        sampler,
        task.schedule,
        torch.Generator().manual_seed(SEED),
        device=task.device,
    )
    pairs = torch.stack([few.goal_latents, imagined.unflatten(0, (rows, goals))], dim=2)
    latents = torch.cat([few.context_latents, pairs.flatten(1, 2)], dim=1)
    images: torch.Tensor = autoencoder.decode(latents.flatten(0, 1).to(task.device))
    return images.unflatten(0, latents.shape[:2])  # type: ignore[no-any-return]


def first_of(batch: WindowBatch, rows: int, goals: int) -> WindowBatch:
    """Return the first contexts of a batch with the first goals of each."""
    per_goal = ("actions_xyyaw", "rel_frames")
    fields: dict[str, torch.Tensor] = {}
    for name in batch.__dataclass_fields__:
        value = getattr(batch, name)
        if value is not None and name != "older":
            fields[name] = value[:rows, :goals] if name.startswith("goal_") or name in per_goal else value[:rows]
    older = None if batch.older is None else batch.older.mapped(lambda own: own[:rows])
    return WindowBatch(**fields, older=older)


def contact_sheet(table: torch.Tensor) -> NDArray[np.uint8]:
    """Return one image (H', W', 3) of a table of images (rows, columns, 3, H, W) in [-1, 1], with white gaps."""
    rows, columns, _, height, width = table.shape
    pixels = bytes_from_images(table.float()).permute(0, 1, 3, 4, 2).cpu()
    sheet = np.full((rows * (height + GAP_PX) - GAP_PX, columns * (width + GAP_PX) - GAP_PX, 3), 255, dtype=np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + GAP_PX), column * (width + GAP_PX)
            sheet[top : top + height, left : left + width] = pixels[row, column].numpy()
    return sheet


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image (H, W, 3) atomically."""
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
