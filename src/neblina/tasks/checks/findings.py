"""A finding is a sentence about one part of a model, and how bad it is."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

OK, NOTE, PROBLEM = "ok", "note", "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ok; note, worth knowing though the model may be as it should; or problem, what is made with it is not
            what its makers meant, if it can be opened at all.
        part: of the model, such as "vae".
        says: a sentence, with the value in question and what to do.
    """

    level: str
    part: str
    says: str


@dataclass(frozen=True)
class Report:
    """Everything that was found.

    Attributes:
        subject: what was looked at.
        facts: what it is, by name; as far as it could be opened.
        findings: in the order of the looking.
    """

    subject: str
    facts: Mapping[str, Any]
    findings: Sequence[Finding]

    @property
    def problems(self) -> list[Finding]:
        """What is wrong."""
        return [finding for finding in self.findings if finding.level == PROBLEM]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        found = [asdict(finding) for finding in self.findings]
        return {"subject": self.subject, "sound": not self.problems, "facts": dict(self.facts), "findings": found}
