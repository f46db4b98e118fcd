"""The sections: what they are called, how many seconds each may take, and where they are."""

import importlib
from typing import NamedTuple

__all__ = ["PLANTED", "SECTIONS", "Section", "chosen", "function_of"]


class Section(NamedTuple):
    """One part of the run, in a process of its own."""

    name: str
    seconds: float  # its share of the default budget; what an earlier section leaves over is added
    where: str  # module and function
    interprets: bool = False  # in a dry run, kernels go through Triton's interpreter

    def environment(self, is_dry: bool) -> dict[str, str]:
        """Return the variables that its process has besides the inherited ones."""
        if not is_dry:
            return {}
        return {"CUDA_VISIBLE_DEVICES": "", **({"TRITON_INTERPRET": "1"} if self.interprets else {})}


SECTIONS = {
    section.name: section
    for section in (
        Section("correctness", 80, "plans:correctness", True),
        Section("pytest", 80, "suite:run"),
        Section("features", 80, "plans:features", True),
        Section("time", 100, "plans:time", True),
        Section("tune", 40, "plans:tune", True),
        Section("first_call", 25, "plans:first_call", True),
        Section("step", 75, "plans:step"),
    )
}

# For the test of the dry run: what these do must be reported, and must not stop the others.
PLANTED = {
    section.name: section
    for section in (
        Section("planted_failures", 20, "planted:fail"),
        Section("planted_crash", 5, "planted:crash"),
        Section("planted_hang", 1, "planted:hang"),
    )
}


def chosen(only: str | None) -> list[Section]:
    """Return the sections asked for, in their order of importance."""
    names = list(SECTIONS) if only is None else [name.strip() for name in only.split(",")]
    for name in names:
        if name not in SECTIONS:
            raise SystemExit(f"no section {name!r}; there are: {', '.join(SECTIONS)}")
    return [section for section in SECTIONS.values() if section.name in names]


def function_of(name: str):
    """Return the function that runs a section."""
    section = (SECTIONS | PLANTED)[name]
    module, function = section.where.split(":")
    return vars(importlib.import_module(f"benchmarks.gpu.{module}"))[function]
