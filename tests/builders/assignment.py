"""Assignment written with loops, from the papers: what assigners are held to."""

from torchvision.ops import box_iou


def atss_with_loops(anchors, boxes, levels):
    """ATSS, where each level is the range of its anchors and the number of candidates in it."""
    matched, best = [-1] * len(anchors), [0.0] * len(anchors)
    ious, centres = box_iou(boxes, anchors), (anchors[:, :2] + anchors[:, 2:]) / 2
    for index, box in enumerate(boxes):
        distance = (centres - (box[:2] + box[2:]) / 2).norm(dim=1)
        chosen = []
        for start, stop, number in levels:
            chosen += [start + int(i) for i in distance[start:stop].topk(number, largest=False).indices]
        own = ious[index][chosen]
        for anchor in chosen:
            inside = (centres[anchor] > box[:2]).all() and (centres[anchor] < box[2:]).all()
            if ious[index, anchor] >= own.mean() + own.std() and inside and ious[index, anchor] > best[anchor]:
                matched[anchor], best[anchor] = index, float(ious[index, anchor])
    return matched
