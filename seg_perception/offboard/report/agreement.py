"""How far two models agree, in rows of a table."""

from __future__ import annotations

from seg_perception.offboard.metrics.agreement import Agreement


def agreement_rows(total: Agreement, differing: int | None = None) -> list[tuple[str, str]]:
    """Label and value of each line.

    Args:
        total: over all frames.
        differing: how many frames have false negatives, false positives or class confusions; None: not counted.
    """
    low, five, ten, half = (f"{value:.4f}" for value in total.iou_percentiles)
    return [
        ("instances of the reference", f"{total.reference}"),
        ("instances of the tested model", f"{total.tested}"),
        ("matched", f"{total.matched}"),
        ("false negatives", f"{total.missed}"),
        ("false positives", f"{total.extra}"),
        ("class confusions", f"{total.switched}"),
        ("all three, of the reference's", f"{100 * total.fault_share:.2f} %"),
        *([] if differing is None else [("frames with any of these", f"{differing} of {total.frames}")]),
        ("mask IoU of matched: mean", f"{total.mean_iou:.4f}"),
        ("mask IoU of matched: 1 %, 5 %, 10 %, 50 %", f"{low}, {five}, {ten}, {half}"),
        (
            "largest difference of a box side: mean, 95 %, most",
            f"{total.mean_box_difference:.2f}, {total.box_difference_95:.2f}, {total.box_difference_max:.2f} px",
        ),
        (
            "difference of scores: mean, 95 % within",
            f"{total.mean_score_difference:+.4f}, {total.score_difference_95:.4f}",
        ),
    ]
