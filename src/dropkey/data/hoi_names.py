"""Names and numbers that the formats of HICO-DET and V-COCO take for granted."""

__all__ = ["COCO_CLASSES", "HICO_VERBS", "VCOCO_ROLES", "VCOCO_VERBS"]


def _words(text: str, between: str = " ") -> tuple[str, ...]:
    return tuple(text.split(between))


_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # ids of COCO that no class has

# COCO's 80 classes by id, 1 to 90, as HICO-DET and V-COCO use them.
COCO_CLASSES = dict(
    zip(
        (number for number in range(1, 91) if number not in _UNUSED),
        _words(
            "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop "
            "sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, "
            "umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball "
            "glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, "
            "apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, "
            "dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, "
            "refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush",
            ", ",
        ),
        strict=True,
    )
)

# HICO-DET's 117 verbs; the formats number them from 1.
HICO_VERBS = _words(
    "adjust assemble block blow board break brush_with buy carry catch chase check clean control cook cut cut_with "
    "direct drag dribble drink_with drive dry eat eat_at exit feed fill flip flush fly greet grind groom herd hit "
    "hold hop_on hose hug hunt inspect install jump kick kiss lasso launch lick lie_on lift light load lose make milk "
    "move no_interaction open operate pack paint park pay peel pet pick pick_up point pour pull push race read "
    "release repair ride row run sail scratch serve set shear sign sip sit_at sit_on slide smell spin squeeze stab "
    "stand_on stand_under stick stir stop_at straddle swing tag talk_on teach text_on throw tie toast train turn "
    "type_on walk wash watch wave wear wield zip"
)

# V-COCO's 29 verbs, each with the role of its object, as QPIC numbers them from 0.
VCOCO_VERBS = _words(
    "hold_obj stand sit_instr ride_instr walk look_obj hit_instr hit_obj eat_obj eat_instr jump_instr lay_instr "
    "talk_on_phone_instr carry_obj throw_obj catch_obj cut_instr cut_obj run work_on_computer_instr ski_instr "
    "surf_instr skateboard_instr smile drink_instr kick_obj point_instr read_obj snowboard_instr"
)

# What role average precision is measured on: all 24 with an object but pointing, which is too rare.
VCOCO_ROLES = tuple(
    number for number, verb in enumerate(VCOCO_VERBS) if verb.endswith(("_obj", "_instr")) and verb != "point_instr"
)
