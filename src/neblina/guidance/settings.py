"""All that is asked for at once, as one plan in one order.

    known( clip( threshold( measured( regions( crops( interval( classifier( rescale( cfg or autoguidance ))))))))

The belief is guided first, every place by its own condition, brought back to its range, and last of all is what is
known where something is; the interval holds for everything that guides towards a condition, and a measurement is
followed at every noise level.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from neblina.core.conditions import NULL_LABEL, Condition
from neblina.core.errors import SettingError
from neblina.core.plan import Plan, conditional
from neblina.core.windows import Cover
from neblina.denoisers.classifier import NoisyClassifier
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.guidance.affine import classifier_free, extrapolated
from neblina.guidance.bootstrap import Backdrop, bootstrapped
from neblina.guidance.classifier import classifier_guided
from neblina.guidance.clipping import check_limit, check_threshold, clip, threshold
from neblina.guidance.crops import crops, windowed
from neblina.guidance.interval import check_interval, interval
from neblina.guidance.known import known
from neblina.guidance.regions import Area, regions
from neblina.guidance.rescaling import check_rescale, rescaled


@dataclass(frozen=True, eq=False)
class Place:
    """A part of the canvas that is asked about under a condition of its own.

    Attributes:
        condition: of its samples.
        mask: where it is, as in `guidance.regions`.
        weight: how much it counts where places overlap.
        guidance: its own weight of classifier-free guidance, None for that of the whole.
        cover: the windows it is asked about in, None to ask about the canvas whole.
        alone: whether it is shown alone while the walk begins.
    """

    condition: Condition
    mask: Tensor
    weight: float = 1.0
    guidance: float | None = None
    cover: Cover | None = None
    alone: bool = True


@dataclass(frozen=True, eq=False)
class Composition:
    """Places on a background, which is under the condition of the whole.

    Attributes:
        places: in any order; none, for a background in windows.
        behind: the background's own mask, None for what no place claims.
        cover: the windows that the background is asked about in, None for the whole.
        guidance: the background's own weight of classifier-free guidance, None for that of the whole.
        backdrop: what is seen around a place that is shown alone; None where none is.
        until: the time down to which they are.
    """

    places: tuple[Place, ...] = ()
    behind: Tensor | None = None
    cover: Cover | None = None
    guidance: float | None = None
    backdrop: Backdrop | None = None
    until: float = 1.0


@dataclass(frozen=True)
class GuidanceSettings:
    """What changes a network's belief on its way to the sampler.

    Attributes:
        weight: of classifier-free guidance or autoguidance, 1 for none.
        unconditional: a separately trained unconditional network for classifier-free guidance's other branch; None for
            the null of the guided one's own.
        weaker: a weaker network of the same thing, which takes the place of that branch: autoguidance.
        classifier: of noisy data, to be guided by.
        classifier_scale: its weight; 1 is Bayes' rule.
        rescale: share of the spread that guidance added and that is taken back, 0 … 1.
        interval: the noise levels σ/α between which there is guidance, None for all.
        threshold: share of a sample's entries that dynamic thresholding leaves below its threshold, None for none.
        clip: limit of the belief, None for none; thresholding goes by it too.
        clip_keeps_direction: steps still point with the unclipped belief's noise.
        crops: side of the crops that a larger canvas is asked about in, and how much neighbours share, both in cells;
            None to ask about it whole.
        composition: what is asked for where; None for one condition everywhere.
        measured: what follows a measurement, from plan to plan; None for nothing.
        known: clean data of the samples and where they are free, as in `guidance.known`; None where nothing is known.
    """

    weight: float = 1.0
    unconditional: NetworkDenoiser | None = None
    weaker: NetworkDenoiser | None = None
    classifier: NoisyClassifier | None = None
    classifier_scale: float = 1.0
    rescale: float = 0.0
    interval: tuple[float, float] | None = None
    threshold: float | None = None
    clip: float | None = None
    clip_keeps_direction: bool = False
    crops: tuple[int, int] | None = None
    composition: Composition | None = None
    measured: Callable[[Plan], Plan] | None = None
    known: tuple[Tensor, Tensor] | None = None

    def plan(self, denoiser: NetworkDenoiser, labels: Condition) -> Plan:
        """The plan of a network under all of this.

        Args:
            denoiser: the network.
            labels: what the samples are conditioned on; an unconditional network leaves them to the classifier.
        Raises:
            SettingError: settings out of range or without effect, and networks that do not go together, before any of
                them is asked.
        """
        if self.composition is None:
            guided = self._guided(denoiser, labels)
        else:
            guided = self._composed(self.composition, labels, denoiser)
        if self.crops is not None:
            guided = crops(guided, size=self.crops[0], overlap=self.crops[1])
        if self.measured is not None:
            guided = self.measured(guided)
        if self.threshold is not None:
            guided = threshold(guided, self.threshold, limit=1.0 if self.clip is None else self.clip)
        if self.clip is not None:
            guided = clip(guided, self.clip, keep_direction=self.clip_keeps_direction)
        return guided if self.known is None else known(guided, *self.known)

    def _guided(self, denoiser: NetworkDenoiser, labels: Condition) -> Plan:
        """What guides towards one condition, at a place or everywhere."""
        condition = Condition() if denoiser.num_classes == 0 and self.classifier is not None else labels
        self._check(denoiser, condition, labels)
        guided = plain = conditional(denoiser, condition)
        if self.weaker is not None:
            guided = extrapolated(plain, conditional(self.weaker, condition), weight=self.weight)
        elif self.weight != 1:
            guided = classifier_free(denoiser, condition, self.weight, unconditional=self.unconditional)
        guided = rescaled(guided, plain, strength=self.rescale)
        if self.classifier is not None:
            guided = classifier_guided(guided, self.classifier, labels, scale=self.classifier_scale)
        if self.interval is not None:
            low, high = self.interval
            guided = interval(guided, plain, denoiser.process.schedule, low=low, high=high)
        return guided

    def _composed(self, composition: Composition, labels: Condition, denoiser: NetworkDenoiser) -> Plan:
        """Every place guided by itself, and all of them on the background."""
        weights = [composition.guidance, *(place.guidance for place in composition.places)]
        if all((self.weight if weight is None else weight) == 1 for weight in weights):
            replace(self, weight=1.0)._guided(denoiser, labels)  # refuses what limits guidance where there is none
        background = self._at(composition.guidance, labels)._guided(denoiser, labels)
        areas = []
        for place in composition.places:
            plan = self._at(place.guidance, place.condition)._guided(denoiser, place.condition)
            if place.cover is not None:
                plan = windowed(plan, place.cover)
            if place.alone and composition.backdrop is not None:
                schedule, until = denoiser.process.schedule, composition.until
                plan = bootstrapped(plan, place.mask, composition.backdrop, schedule, until=until)
            areas.append(Area(plan, place.mask, place.weight))
        if composition.cover is not None:
            background = windowed(background, composition.cover)
        if not areas:
            return background
        return regions(background, areas, composition.behind, until=composition.until)

    def _at(self, weight: float | None, condition: Condition) -> "GuidanceSettings":
        """The same for a place: what has nothing to act on there is left out there."""
        own = self if weight is None else replace(self, weight=weight)
        if own.classifier is not None and bool((own.classifier.labels(condition) == NULL_LABEL).all()):
            own = replace(own, classifier=None)
        if own.weight != 1:
            return own
        limits = own.interval if own.classifier is not None else None
        return replace(own, weaker=None, unconditional=None, rescale=0.0, interval=limits)

    def _check(self, denoiser: NetworkDenoiser, condition: Condition, labels: Condition) -> None:
        """Refuse what is out of range, says nothing, or does not fit."""
        if not math.isfinite(self.weight):
            raise SettingError(f"guidance is a finite number, not {self.weight:g}")
        guides = self.weight != 1 or self.classifier is not None
        if self.interval is not None:
            check_interval(*self.interval)
            if not guides:
                raise SettingError("an interval of guidance limits guidance, and there is none; set guidance above 1")
        check_rescale(self.rescale)
        if self.rescale and self.weight == 1:
            raise SettingError("rescaling takes back what guidance adds, and guidance is 1; set guidance above 1")
        if self.threshold is not None:
            check_threshold(self.threshold)
        if self.clip is not None:
            check_limit(self.clip)
        denoiser.check(condition)
        if self.weaker is not None:
            self._check_weaker(self.weaker, denoiser, condition)
        elif self.weight != 1:
            self._check_null(denoiser, condition)
        if self.unconditional is not None:
            if self.weight == 1:
                raise SettingError("at guidance 1 the unconditional model is not asked: set guidance above 1")
            if self.unconditional.process != denoiser.process:
                raise SettingError(
                    "the unconditional model was trained on another process, so the two cannot be combined"
                )
            self.unconditional.check(Condition())
        if self.classifier is not None:
            self._check_classifier(self.classifier, denoiser, labels)

    def _check_null(self, denoiser: NetworkDenoiser, condition: Condition) -> None:
        if denoiser.num_classes == 0 and denoiser.wants.text is None:
            raise SettingError(
                f"guidance {self.weight:g} needs a model with a condition, and this one is unconditional; leave it at 1"
            )
        labels = condition.labels if denoiser.wants.text is None else None
        if labels is not None and bool((labels == NULL_LABEL).all()):
            raise SettingError(f"guidance {self.weight:g} follows a label, and there is none; say which")
        if self.unconditional is None:
            denoiser.check(condition.null())

    def _check_weaker(self, weaker: NetworkDenoiser, denoiser: NetworkDenoiser, condition: Condition) -> None:
        if self.unconditional is not None:
            raise SettingError(
                "guidance goes away from one other model: give an unconditional one or a weaker one (autoguidance)"
            )
        if self.weight == 1:
            raise SettingError("autoguidance at guidance 1 is none: set guidance above 1")
        if weaker.process != denoiser.process:
            raise SettingError("the weaker model was trained on another process, so the two cannot be combined")
        if weaker.num_classes != denoiser.num_classes:
            raise SettingError(
                f"the weaker model knows {weaker.num_classes} classes and the model {denoiser.num_classes}; "
                "autoguidance asks both under the same condition"
            )
        weaker.check(condition)

    def _check_classifier(self, classifier: NoisyClassifier, denoiser: NetworkDenoiser, labels: Condition) -> None:
        if classifier.process != denoiser.process:
            raise SettingError("the classifier was trained on another process than the model, so it misreads its noise")
        if denoiser.num_classes not in (0, classifier.num_classes):
            raise SettingError(
                f"the classifier knows {classifier.num_classes} classes and the model {denoiser.num_classes}"
            )
        if not math.isfinite(self.classifier_scale):
            raise SettingError(f"classifier_scale is a finite number, not {self.classifier_scale:g}")
        if self.classifier_scale == 0:
            raise SettingError(
                "a classifier of scale 0 is not asked: set classifier_scale above 0, or give no classifier"
            )
        if bool((classifier.labels(labels) == NULL_LABEL).all()):
            raise SettingError("a classifier guides towards a label, and there is none; say which")
