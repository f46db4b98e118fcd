"""Bodies of sampled shape and pose, drawn on random backgrounds: pictures with an exact surface, made here."""
