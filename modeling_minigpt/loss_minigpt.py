"""Which targets count in the loss of a batch, and which positions predict them."""

import torch

from .masks_minigpt import is_padding_mask, new_columns


def prepare_targets(
    labels: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    seen: int | torch.Tensor,
    inputs: torch.Tensor | None,
    skip_logits: bool,
    settings: dict,
) -> tuple[torch.Tensor | None, dict, dict]:
    """Find what there is to predict in a batch.

    Args:
        labels: (B, T), or None.
        attention_mask: as in `MiniGPTForCausalLM.forward`.
        seen: columns of the mask that the cache has seen, as `columns_seen` returns them.
        inputs: ids (B, T) or embeddings (B, T, C).
        skip_logits: whether to compute only what predicts a target.
        settings: the other arguments of `MiniGPTForCausalLM.forward`.

    Returns:
        The targets (B, T), the settings of the model without a head, and those of the loss.

    Raises:
        ValueError: as `find_targets`, with `skip_logits`.
    """
    targets = labels
    for_loss = settings
    if labels is not None:
        targets, for_loss = drop_targets_of_padding(labels, attention_mask, seen, settings)
    if not skip_logits:
        return targets, settings, for_loss
    positions, following = find_targets(targets, inputs)
    return targets, {**settings, "target_positions": positions}, {**for_loss, "shift_labels": following}


def drop_targets_of_padding(
    labels: torch.Tensor, attention_mask: torch.Tensor | None, seen: int | torch.Tensor, settings: dict
) -> tuple[torch.Tensor, dict]:
    """Drop the targets (B, T) that a column of padding would predict; return them, and the loss's settings.

    Of [pad, pad, a, b] the second column would predict a, which a row alone does not predict. Where `Trainer` has
    counted such targets into `num_items_in_batch`, that is lowered by their share in this batch. With gradient
    accumulation, batches with a larger share so weigh a little more than without; padding on the right is exact.
    """
    if not is_padding_mask(attention_mask):
        return labels, settings
    batch, length = labels.shape
    least = length if isinstance(seen, torch.Tensor) else seen + length
    if attention_mask.shape[0] != batch or attention_mask.shape[1] < least:
        return labels, settings  # the model refuses such a mask, and names what it wants
    predicted_by = new_columns(attention_mask, seen, length).roll(1, dims=-1)
    kept = labels.masked_fill(predicted_by == 0, -100)
    count = settings.get("num_items_in_batch")
    if count is None:
        return kept, settings
    # The share is 1 without padding on the left, and never 0: without targets the loss is 0 / count, not 0 / 0.
    left, counted = ((targets[:, 1:] != -100).sum().clamp(min=1) for targets in (kept, labels))
    return kept, {**settings, "num_items_in_batch": count * (left.float() / counted)}


def find_targets(
    labels: torch.Tensor | None, inputs: torch.Tensor | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Find what there is to predict: the numbers of the positions that predict a target, and the targets; (N,) each.

    Of labels [[-100, 5, 6], [-100, -100, 7]] the positions 0, 1 and 4, counted row by row, predict 5, 6 and 7.

    Args:
        labels: (B, T).
        inputs: ids (B, T) or embeddings (B, T, C) that they belong to; None finds nothing, as the model refuses it.

    Raises:
        ValueError: no labels, or labels of another shape than the inputs.
    """
    if labels is None:
        raise ValueError("skip_logits returns the loss alone, which needs labels")
    if inputs is None:
        return None, None
    if labels.shape != inputs.shape[:2]:
        raise ValueError(f"labels must be {tuple(inputs.shape[:2])} as the inputs are, found {tuple(labels.shape)}")
    following = labels.roll(-1, dims=-1)
    following[:, -1] = -100  # the last token predicts nothing
    following = following.flatten()
    positions = (following != -100).nonzero()[:, 0]
    return positions, following[positions]
