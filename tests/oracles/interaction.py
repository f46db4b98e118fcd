"""Average precision of interactions a second time: one prediction after the other, in plain Python."""

import itertools
from fractions import Fraction


def iou(box, other):
    if not any(box) or not any(other):
        return 0.0
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    inside = width * height
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
    return inside / (sum(areas) - inside)


def average_precision(scored, num_truth, interpolation):
    """``scored``: (score, is right) of one class. Thresholds at each distinct score, nothing else."""
    points = []  # (recall, precision)
    for threshold in sorted({score for score, _ in scored}, reverse=True):
        taken = [right for score, right in scored if score >= threshold]
        points.append((Fraction(sum(taken), num_truth), Fraction(sum(taken), len(taken))))

    def best(recall):
        return max((p for r, p in points if r >= recall), default=Fraction(0))

    if interpolation == "11-point":
        return float(sum(best(Fraction(tenth, 10)) for tenth in range(11)) / 11)
    recalls = [Fraction(0), *sorted({r for r, _ in points})]
    return float(sum((high - low) * best(high) for low, high in itertools.pairwise(recalls)))


def hico_det(truth, predictions, triplets, rare=(), setting="default", interpolation="11-point"):
    """``truth``: dicts of image, subject, object_box, object, verb; ``predictions``: the same with score.

    Returns (full, rare, non-rare, AP by triplet with None where there is no truth).
    """
    by_triplet = []
    for verb, category in triplets:
        mine = [pair for pair in truth if (pair["verb"], pair["object"]) == (verb, category)]
        if not mine:
            by_triplet.append(None)
            continue
        shown = {pair["image"] for pair in truth if pair["object"] == category}
        taken, scored = [], []
        for guess in sorted(predictions, key=lambda guess: -guess["score"]):
            if (guess["verb"], guess["object"]) != (verb, category):
                continue
            if setting == "known_object" and guess["image"] not in shown:
                continue
            candidates = [
                (min(iou(guess["subject"], p["subject"]), iou(guess["object_box"], p["object_box"])), index)
                for index, p in enumerate(mine)
                if p["image"] == guess["image"]
            ]
            largest = max((overlap for overlap, _ in candidates), default=0.0)
            tied = [index for overlap, index in candidates if overlap == largest]
            free = [index for index in tied if index not in taken]
            right = largest >= 0.5 and bool(free)
            if right:
                taken.append(free[0])
            scored.append((guess["score"], right))
        by_triplet.append(average_precision(scored, len(mine), interpolation) if scored else 0.0)
    means = []
    for wanted in (range(len(triplets)), rare, set(range(len(triplets))) - set(rare)):
        known = [by_triplet[index] for index in wanted if by_triplet[index] is not None]
        means.append(sum(known) / len(known) if known else None)
    return (*means, by_triplet)


def vcoco(truth, predictions, roles, scenario, persons=(), interpolation="all-point"):
    """``persons``: dicts of image, box, annotated. Returns (mean, AP by role)."""
    by_role = []
    for role in roles:
        mine = [pair for pair in truth if pair["verb"] == role]
        taken, scored = [], []
        for guess in sorted(predictions, key=lambda guess: -guess["score"]):
            if guess["verb"] != role:
                continue
            nearest, overlap, is_annotated = nearest_person(guess, truth, persons)
            if overlap > 0 and not is_annotated:
                continue
            found = found_pair(guess, mine, nearest, taken, scenario) if overlap >= 0.5 else None
            taken += [] if found is None else [found]
            scored.append((guess["score"], found is not None))
        ap = average_precision(scored, len(mine), interpolation) if scored and mine else 0.0
        by_role.append(ap if mine else None)
    known = [value for value in by_role if value is not None]
    return (sum(known) / len(known) if known else None), by_role


def nearest_person(guess, truth, persons):
    people = {tuple(pair["subject"]): True for pair in truth if pair["image"] == guess["image"]}
    for person in persons:
        if person["image"] == guess["image"]:
            box = tuple(person["box"])
            people[box] = people.get(box, False) or person["annotated"]
    if not people:
        return None, 0.0, True
    nearest = min(people, key=lambda box: (-iou(guess["subject"], box), box))
    return nearest, iou(guess["subject"], nearest), people[nearest]


def found_pair(guess, mine, person, taken, scenario):
    candidates = []
    for index, pair in enumerate(mine):
        if (pair["image"], tuple(pair["subject"])) == (guess["image"], person):
            if any(pair["object_box"]):
                value = iou(guess["object_box"], pair["object_box"])
            else:
                value = 1.0 if scenario == 2 or not any(guess["object_box"]) else 0.0
            candidates.append((value, index))
    largest = max((value for value, _ in candidates), default=0.0)
    free = [index for value, index in candidates if value == largest and index not in taken]
    return free[0] if largest >= 0.5 and free else None
