"""Every codec that is compared, one entry each. To add a codec, write its file in this folder and its entry here.

An entry says what a codec is called and how it is drawn, how it comes to be, and at which settings it is measured,
played and predicted. Scores, curves, small policies, replays, tables and figures list what stands here and nothing
else. What is fitted by gradients names its network; `training/` trains it, and hands it over in `Fitting`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rfsq_robust import ActionRFSQAE, Conditioning
from workbook.codecs.beast import BeastCodec
from workbook.codecs.bins import UniformBins
from workbook.codecs.brought import BroughtCodec
from workbook.codecs.chunk_transformers import REGISTERS, ChunkTransformer, ChunkTransformerCodec, Manner
from workbook.codecs.fast import FastScales, quantile_normaliser
from workbook.codecs.klt import KltCodec, fit_klt
from workbook.codecs.klt_rfsq import FixedLength, KltRFSQ, VariableLength, codes_at, fit_variable_length
from workbook.codecs.learned import NUM_QUANTIZERS, LearnedAE, LearnedCodec, Quantizer
from workbook.codecs.other_decoder import ChunkDecoder, ChunkReader, OtherDecoder
from workbook.codecs.protocol import Codec
from workbook.codecs.rfsq import RefittedDecoder, RFSQCodec, WholeChunkRFSQ, layers_enough, live_layers
from workbook.codecs.token_spaces import Bins, ChunkCodes, SequenceTokens, StepRFSQ, TokenSpace
from workbook.common.array import Array
from workbook.common.targets import COARSE_LAYERS
from workbook.data.chunks import Normaliser, cut_chunks
from workbook.data.dataset import Dataset

T = TypeVar("T")
Family = Literal["naive", "rfsq", "klt_rfsq", "fast", "bins", "other"]
Unit = Literal["step", "chunk"]
NotPredicted = Literal["", "varies", "too_many_values", "no_tokens", "cannot_be_sent"]

RATED_STEPS = 8  # of a chunk that rates and codes are told for here; `at_steps` of others
POLICY_RATES = (40, 60, 80, 100, 120, 140, 160, 180)  # bits a chunk
FITTED_RATES = (24, 32, *POLICY_RATES, 200, 224)
EQUAL_RATES = (8, 24, 40, 80, 140)  # at which KLT-RFSQ is held against FAST-style tokens
SHOWN_RATE = 80  # bits a chunk at which the first page quotes the codecs
PLAYED_RATES = (24, 40, SHOWN_RATE, 140)  # at which KLT-RFSQ and FAST-style tokens are both played
CHUNK_LATENTS, CHUNK_LEVELS = 24, 7  # of the guide's RFSQ on whole chunks
SWEEP_LATENTS, SWEEP_LEVELS = (4, 8, 16, 32), (3, 5, 7, 15)
FEW_LAYERS = 3  # of the fixed scale: where its error on the sample stops to fall
MOST_POLICY_LAYERS = 3  # of a codec that a policy predicts without `full`
MOST_LOGITS = 20_000  # of a chunk of a brought codec that a policy predicts; at 8 steps the catalogue's are fewer
QUEST_STEPS = (1, 2, 4)  # of a token; QueST takes 4, at which a policy predicts it
BEAST_POINTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # control points of a dimension; BEAST takes half as many as steps
GRIPPER_BITS = "gripper_bits"  # of KLT-RFSQ, which decide how many codes fit into a rate
POLICY_CODES = 36  # residual codes of KLT-RFSQ that a policy predicts: about 61 bits a chunk


@dataclass(frozen=True)
class Setting:
    """In what the codecs of one entry differ, as names and values: 'layers=3', 'bins=64'."""

    values: tuple[tuple[str, float], ...]

    @staticmethod
    def of(**values: float) -> Setting:
        return Setting(tuple(values.items()))

    @staticmethod
    def parse(text: str) -> Setting:
        pairs = (pair.partition("=") for pair in text.split())
        return Setting(tuple((name, float(value)) for name, _, value in pairs))

    def __getitem__(self, name: str) -> float:
        return dict(self.values)[name]

    def count(self, name: str) -> int:
        return int(self[name])

    def get(self, name: str, default: float | None = None) -> float | None:
        return dict(self.values).get(name, default)

    def __str__(self) -> str:
        return " ".join(f"{name}={value:g}" for name, value in self.values)


@dataclass(frozen=True)
class Network:
    """A network to train: a residual quantizer in the guide's autoencoder, on single steps or on whole chunks, or a
    transformer of whole chunks.

    Sizes that are None are those of 02_train_robust; swept: trained for as many epochs as the models of that notebook;
    steps_a_token: in QueST's manner.
    """

    quantizer: Conditioning | Quantizer | Manner
    unit: Unit
    hidden_dim: int | None = None
    num_levels: int | None = None
    swept: bool = False
    steps_a_token: int = 1


@dataclass(frozen=True, eq=False)
class Fitting:
    """What a codec may be made from: the train part, what was trained on it, and validation chunks for choices.

    rfsq: the models of 02_train_robust, one codec a seed; networks: those that entries name, one model a seed;
    decoders: of naive tokens, for steps and for whole chunks, one a naive model; klt_rfsq: where it was fitted before;
    brought: tokenizers of the user's own; decided: settings that are taken from another fold (`decided`).
    """

    dataset: Dataset
    rfsq: Mapping[Conditioning, Sequence[RFSQCodec]] = field(default_factory=dict)
    networks: Mapping[Network, Sequence[nn.Module]] = field(default_factory=dict)
    decoders: Mapping[Unit, Sequence[nn.Module]] = field(default_factory=dict)
    klt_rfsq: Sequence[VariableLength] = ()
    brought: Sequence[BroughtCodec] = ()
    full: bool = False
    decided: Setting = Setting(())
    _made: dict[Callable[..., Any], Any] = field(default_factory=dict)

    @property
    def normaliser(self) -> Normaliser:
        return self.dataset.normaliser

    @property
    def layers(self) -> int:
        return self.rfsq["scale"][0].model.rfsq.num_layers

    def once(self, make: Callable[[Fitting], T]) -> T:
        """What several settings share is made a single time."""
        if make not in self._made:
            self._made[make] = make(self)
        return self._made[make]


def fitting_chunks(fitting: Fitting) -> Array:
    """(N, C, A) train chunks that start every other step, for what is fitted in closed form."""
    dataset = fitting.dataset
    stride = min(2, dataset.chunk_len)
    return cut_chunks([episode.actions for episode in dataset.part("train")], dataset.chunk_len, stride).actions


def _validation_chunks(fitting: Fitting) -> Array:
    return fitting.dataset.held_out_chunks("validation").actions


Settings = Callable[[Fitting], Sequence[Setting]]


def _none(fitting: Fitting) -> Sequence[Setting]:
    return ()


def at(name: str, *values: float) -> Settings:
    """The same settings, whatever the data."""
    return lambda fitting: [Setting.of(**{name: value}) for value in values]


@dataclass(frozen=True)
class Entry:
    """One codec. line: marker and line style, as matplotlib writes them; family: with which others it is held together
    where the best of a kind is looked for.

    fixed_length: every chunk costs the same; prefix: the first tokens decode. codecs: one a seed, or one where no seed
    matters. Of settings, `compared` stand in the tables of 03_compare, `measured` on the curve of bits and error,
    `analysed` in 04_residual_analysis, `played` in the simulator; small policies predict the tokens of `predicted`
    ones, which `space` lays out for them; what tokens cost a policy is told of those compared or predicted, and of
    `costed` ones; FAST-style tokens are fitted to those predicted or `beside_fast`. reads: the codec whose tokens it
    decodes in that one's stead (option B); where it has a `space`, those that a policy predicts, too. Policies in the
    loop decode the tokens of the first `predicted` setting by `rules`; phase2: a draft and a main model play with all
    of its layers, too. Under `full` they predict every codec that has a `space`, decode by every rule, and predict the
    `sequences` of variable length. kept: what it is trained by outlives 03_compare, so that later notebooks have it.
    """

    name: str
    title: str
    colour: str
    line: str
    fixed_length: bool
    prefix: bool
    codecs: Callable[[Fitting, Setting], Sequence[Codec]]
    measured: Settings = _none
    compared: Settings = _none
    analysed: Settings = _none
    played: Settings = _none
    predicted: Settings = _none
    costed: Settings = _none
    beside_fast: Settings = _none
    networks: Callable[[bool], Sequence[Network]] = lambda full: ()
    space: Callable[[Codec, int], TokenSpace] | None = None
    reads: str = ""
    rules: tuple[str, ...] = ()
    phase2: bool = False
    sequences: Settings = _none
    family: Family = "other"
    kept: bool = True

    def settings(self, fitting: Fitting) -> list[Setting]:
        """Those that are scored, each once."""
        lists = (self.measured, self.analysed, self.compared)
        return list(dict.fromkeys(setting for settings in lists for setting in settings(fitting)))

    def costed_at(self, fitting: Fitting) -> list[Setting]:
        """Those of which it is told what the tokens cost a policy."""
        return list(dict.fromkeys(_together(self.compared, self.predicted, self.costed)(fitting)))

    def held_against_fast(self, fitting: Fitting) -> list[Setting]:
        return list(dict.fromkeys(_together(self.beside_fast, self.predicted)(fitting)))


def at_steps(number: float, steps: int) -> int:
    """Bits or codes of a chunk of so many steps, as many a step as `number` is in one of 8."""
    return max(1, round(number * steps / RATED_STEPS))


def _rates_of(fitting: Fitting, rates: Sequence[float]) -> list[int]:
    return list(dict.fromkeys(at_steps(rate, fitting.dataset.chunk_len) for rate in rates))


def _at_rates(*rates: float) -> Settings:
    return lambda fitting: [Setting.of(rate=rate) for rate in _rates_of(fitting, rates)]


def quoted_rate(settings: Iterable[str]) -> str:
    """Of the settings that a codec was played at, the rate that is quoted; '' where it was played at none.

    The second highest: of chunks of 8 steps SHOWN_RATE, of others as many bits a step.
    """
    rates = sorted(Setting.parse(each)["rate"] for each in settings if each.startswith("rate="))
    return str(Setting.of(rate=rates[-2:][0])) if rates else ""


# The residual quantizer of the guide's autoencoder, step by step, under each way of conditioning the residual.

CONDITIONED: dict[Conditioning, str] = {
    "none": "naive",
    "layernorm": "layernorm",
    "frozen_layernorm": "running_statistics",
    "learned_scale": "learned_scale",
    "scale": "fixed_scale",
}


def _all_layers(fitting: Fitting) -> Sequence[Setting]:
    return [Setting.of(layers=fitting.layers)]


def _every_prefix(fitting: Fitting) -> Sequence[Setting]:
    return [Setting.of(layers=k) for k in range(1, fitting.layers + 1)]


def _sweep(fitting: Fitting) -> Sequence[Setting]:
    """Under `full`: other numbers of latents and levels, each at every prefix."""
    return [
        Setting.of(latents=latents, levels=levels, layers=k)
        for latents in (SWEEP_LATENTS if fitting.full else ())
        for levels in SWEEP_LEVELS
        for k in range(1, fitting.layers + 1)
    ]


def _swept(quantizer: Conditioning, unit: Unit) -> Callable[[bool], Sequence[Network]]:
    sizes = [(latents, levels) for latents in SWEEP_LATENTS for levels in SWEEP_LEVELS]
    return lambda full: [Network(quantizer, unit, *size, swept=True) for size in (sizes if full else [])]


def _chunk_networks(quantizer: Conditioning) -> Callable[[bool], Sequence[Network]]:
    swept = _swept(quantizer, "chunk")
    return lambda full: [Network(quantizer, "chunk", CHUNK_LATENTS, CHUNK_LEVELS), *swept(full)]


def _rfsq(conditioning: Conditioning, statistics: Literal["assumed", "sent"] = "assumed") -> Callable[..., Any]:
    """The first layers of 02_train_robust's models; where sizes are named, of those of the sweep."""

    def codecs(fitting: Fitting, setting: Setting) -> Sequence[Codec]:
        layers = setting.count("layers")
        if setting.get("latents") is None:
            return [replace(codec, layers=layers, statistics=statistics) for codec in fitting.rfsq[conditioning]]
        network = Network(conditioning, "step", setting.count("latents"), setting.count("levels"), swept=True)
        return [
            RFSQCodec(conditioning, _as_rfsq(model), fitting.normaliser, statistics, layers)
            for model in fitting.networks[network]
        ]

    return codecs


def _as_rfsq(model: nn.Module) -> ActionRFSQAE:
    assert isinstance(model, ActionRFSQAE)
    return model


def _refitted(conditioning: Conditioning) -> Callable[..., Any]:
    def codecs(fitting: Fitting, setting: Setting) -> Sequence[Codec]:
        chunks = fitting.dataset.train_chunks()
        return [RefittedDecoder.fit(codec, chunks) for codec in fitting.rfsq[conditioning]]

    return codecs


def _whole_chunks(conditioning: Conditioning) -> Callable[..., Any]:
    def codecs(fitting: Fitting, setting: Setting) -> Sequence[Codec]:
        if setting.get("latents") is None:
            network = Network(conditioning, "chunk", CHUNK_LATENTS, CHUNK_LEVELS)
        else:
            network = Network(conditioning, "chunk", setting.count("latents"), setting.count("levels"), swept=True)
        models = map(_as_rfsq, fitting.networks[network])
        return [WholeChunkRFSQ(model, fitting.normaliser, setting.count("layers")) for model in models]

    return codecs


def _steps_of_rfsq(codec: Codec, steps: int) -> TokenSpace:
    assert isinstance(codec, RFSQCodec)
    assert codec.layers is not None
    return StepRFSQ(codec, steps, codec.layers)


# Option B: naive tokens, which Phase 2 goes on predicting, and another decoder in Phase 3.


def _crossed(conditioning: Conditioning) -> Callable[..., Any]:
    """Paired by seed; a single naive model of the user's own goes with every decoder."""

    def codecs(fitting: Fitting, setting: Setting) -> Sequence[Codec]:
        naive, decoders = fitting.rfsq["none"], fitting.rfsq[conditioning]
        paired = naive if len(naive) == len(decoders) else [naive[0]] * len(decoders)
        return [OtherDecoder(encoder, decoder) for encoder, decoder in zip(paired, decoders, strict=True)]

    return codecs


def _retrained(fitting: Fitting, setting: Setting) -> Sequence[Codec]:
    pairs = zip(fitting.rfsq["none"], fitting.decoders["step"], strict=True)
    return [replace(codec, model=_as_rfsq(model), layers=setting.count("layers")) for codec, model in pairs]


def _by_whole_chunks(fitting: Fitting, setting: Setting) -> Sequence[Codec]:
    pairs = zip(fitting.rfsq["none"], fitting.decoders["chunk"], strict=True)
    return [
        OtherDecoder(codec, ChunkReader(model, codec.normaliser))
        for codec, model in pairs
        if isinstance(model, ChunkDecoder)
    ]


# The field's learned quantizers.


def _learned(quantizer: Quantizer) -> Callable[..., Any]:
    def codecs(fitting: Fitting, setting: Setting) -> Sequence[Codec]:
        models = fitting.networks[Network(quantizer, "step")]
        learned = [model for model in models if isinstance(model, LearnedAE)]
        return [LearnedCodec(model, fitting.normaliser, setting.count("quantizers")) for model in learned]

    return codecs


def _every_quantizer(fitting: Fitting) -> Sequence[Setting]:
    return [Setting.of(quantizers=count) for count in range(1, NUM_QUANTIZERS + 1)]


# The field's transformers of whole chunks, under `full`.


def _transformers(manner: Manner, *steps_a_token: int) -> Callable[[bool], Sequence[Network]]:
    return lambda full: [Network(manner, "chunk", steps_a_token=steps) for steps in (steps_a_token if full else ())]


def _where_trained(manner: Manner, settings: Settings) -> Settings:
    return lambda fitting: [one for one in settings(fitting) if _transformer_at(manner, one) in fitting.networks]


def _transformer_at(manner: Manner, setting: Setting) -> Network:
    return Network(manner, "chunk", steps_a_token=int(setting.get("steps_a_token") or 1))


def _transformer(manner: Manner) -> Callable[..., Any]:
    def codecs(fitting: Fitting, setting: Setting) -> Sequence[Codec]:
        models = fitting.networks[_transformer_at(manner, setting)]
        trained = [model for model in models if isinstance(model, ChunkTransformer)]
        return [
            ChunkTransformerCodec(model, fitting.normaliser, int(setting.get("registers") or model.tokens))
            for model in trained
        ]

    return codecs


_all_registers = _where_trained("oat", at("registers", REGISTERS))
_quests_own = _where_trained("quest", at("steps_a_token", QUEST_STEPS[-1]))


def _sequence_of_a_chunk(codec: Codec, steps: int) -> TokenSpace:
    if isinstance(codec, BroughtCodec):
        return SequenceTokens(codec, codec.lengths[1], codec.varies)
    assert isinstance(codec, ChunkTransformerCodec)
    return SequenceTokens(codec, codec.prefix)


# Fitted in closed form, without seeds.


def _klt_rfsq(fitting: Fitting) -> Sequence[VariableLength]:
    """One fitted model behind a codec of variable length for each rate."""
    if fitting.klt_rfsq:
        return fitting.klt_rfsq
    chunks = fitting.once(fitting_chunks)
    model = KltRFSQ.fit(chunks, fitting.dataset.layout, fitting.normaliser)
    return fit_variable_length(model, chunks, _rates_of(fitting, FITTED_RATES))


def klt_rfsq_of(fitting: Fitting) -> Sequence[VariableLength]:
    """KLT-RFSQ, fitted once, as it is written to a file."""
    return fitting.once(_klt_rfsq)


def _variable(fitting: Fitting, setting: Setting) -> Sequence[Codec]:
    return [next(codec for codec in klt_rfsq_of(fitting) if codec.rate == setting["rate"])]


def _fixed(fitting: Fitting, setting: Setting) -> Sequence[Codec]:
    model = klt_rfsq_of(fitting)[0].model
    codes = setting.get("codes")
    return [FixedLength(model, codes_at(model, setting["rate"]) if codes is None else int(codes))]


def _fixed_counts(*rates: float) -> Settings:
    def settings(fitting: Fitting) -> Sequence[Setting]:
        model, bits = klt_rfsq_of(fitting)[0].model, fitting.decided.get(GRIPPER_BITS)
        more = 0.0 if bits is None else model.gripper_bits - bits
        fitted = [codes_at(model, rate + more) for rate in _rates_of(fitting, rates)]
        return [Setting.of(codes=count) for count in dict.fromkeys(fitted)]

    return settings


def _policy_codes(fitting: Fitting) -> Sequence[Setting]:
    count = at_steps(POLICY_CODES, fitting.dataset.chunk_len)
    return [Setting.of(codes=count * times) for times in ((1, 2) if fitting.full else (1,))]


def _codes_of_a_chunk(codec: Codec, steps: int) -> TokenSpace:
    assert isinstance(codec, FixedLength)
    return ChunkCodes(codec)


def _beast(fitting: Fitting, setting: Setting) -> Sequence[Codec]:
    layout = fitting.dataset.layout
    return [BeastCodec.fit(fitting.once(fitting_chunks), layout, fitting.normaliser, setting.count("points"))]


def _beast_points(fitting: Fitting) -> Sequence[Setting]:
    return [Setting.of(points=count) for count in BEAST_POINTS if count <= fitting.dataset.chunk_len]


def _half_as_many_points(fitting: Fitting) -> Sequence[Setting]:
    return [Setting.of(points=max(1, fitting.dataset.chunk_len // 2))]


def _bins(fitting: Fitting, setting: Setting) -> Sequence[Codec]:
    return [UniformBins(setting.count("bins"), fitting.normaliser)]


def _policy_bins(fitting: Fitting) -> Sequence[Setting]:
    return [Setting.of(bins=count) for count in ((64, 16, 256) if fitting.full else (64,))]


def _bins_of_a_step(codec: Codec, steps: int) -> TokenSpace:
    assert isinstance(codec, UniformBins)
    return Bins(codec, steps)


def _klt_at_rates(fitting: Fitting) -> dict[float, KltCodec]:
    rates = _rates_of(fitting, FITTED_RATES)
    fitted = fit_klt(fitting.once(fitting_chunks), fitting.normaliser, rates)
    return dict(zip(map(float, rates), fitted, strict=True))


def _klt(fitting: Fitting, setting: Setting) -> Sequence[Codec]:
    return [fitting.once(_klt_at_rates)[setting["rate"]]]


def fast_scales(fitting: Fitting) -> FastScales:
    return FastScales(fitting.once(fitting_chunks), fitting.once(_validation_chunks), fitting.normaliser)


def _fast(fitting: Fitting, setting: Setting) -> Sequence[Codec]:
    """At a scale, or at the scale at which a validation chunk costs what KLT-RFSQ pays at a rate."""
    scale = setting.get("scale")
    if scale is not None:
        return [fitting.once(fast_scales).codec(scale)]
    equal = _variable(fitting, setting)[0]
    bits = equal.bits(equal.encode(fitting.once(_validation_chunks)))
    return [fast_scales(fitting).at(bits)]  # a search of its own, which no other has helped


def fast_quantile_scales(fitting: Fitting) -> FastScales:
    actions = np.concatenate([episode.actions for episode in fitting.dataset.part("train")])
    validation = fitting.once(_validation_chunks)
    return FastScales(fitting.once(fitting_chunks), validation, quantile_normaliser(actions), clips=True)


def _fast_quantile(fitting: Fitting, setting: Setting) -> Sequence[Codec]:
    return [fitting.once(fast_quantile_scales).codec(setting["scale"])]


def _together(*parts: Settings) -> Settings:
    return lambda fitting: [setting for part in parts for setting in part(fitting)]


def _layers_for_a_policy(
    conditioning: Conditioning, enough: Callable[[Sequence[RFSQCodec], Array, NDArray[np.bool_]], int]
) -> Settings:
    """As many first layers as tell something on validation chunks; without `full` three at most."""

    def settings(fitting: Fitting) -> Sequence[Setting]:
        given = fitting.decided.get(CONDITIONED[conditioning])
        if given is not None:
            return [Setting.of(layers=given)]
        chunks = fitting.dataset.held_out_chunks("validation")
        count = enough(fitting.rfsq[conditioning], chunks.actions, chunks.valid)
        return [Setting.of(layers=count if fitting.full else min(count, MOST_POLICY_LAYERS))]

    return settings


def _enough_for_a_draft(codecs: Sequence[RFSQCodec], chunks: Array, valid: NDArray[np.bool_]) -> int:
    """Not fewer than the coarse layers that a draft model predicts."""
    return min(max(layers_enough(codecs, chunks, valid), COARSE_LAYERS), codecs[0].model.rfsq.num_layers)


def _few_layers(fitting: Fitting) -> Sequence[Setting]:
    return [Setting.of(layers=count) for count in dict.fromkeys((fitting.layers, min(FEW_LAYERS, fitting.layers)))]


GREY, BLUE, ORANGE, PURPLE, GREEN = "#7f7f7f", "#0072b2", "#d55e00", "#cc79a7", "#009e73"  # Okabe and Ito
SKY, OCHRE, OLIVE = "#56b4e9", "#b8860b", "#999933"
# The codecs of 02_train_robust come first; in this order tables and legends list them all.
ENTRIES = (
    Entry(
        "naive", "naive", GREY, "o-", True, True, _rfsq("none"),
        measured=_together(_every_prefix, _sweep), compared=_all_layers, played=_all_layers,
        analysed=_every_prefix, predicted=_layers_for_a_policy("none", live_layers),
        networks=_swept("none", "step"), space=_steps_of_rfsq,
        rules=("parallel_argmax", "soft"), phase2=True, family="naive",
    ),
    Entry(
        "naive_refitted", "naive, linear decoder refitted", GREY, ".:", True, False, _refitted("none"),
        compared=_all_layers,
    ),
    Entry(
        "layernorm", "LayerNorm", ORANGE, "X-", True, False, _rfsq("layernorm"), compared=_all_layers,
        played=_all_layers, space=_steps_of_rfsq,
    ),
    Entry(
        "layernorm_sent", "LayerNorm, statistics sent", ORANGE, "*--", True, False, _rfsq("layernorm", "sent"),
        compared=_all_layers, analysed=_every_prefix, played=_all_layers,
    ),
    Entry(
        "layernorm_refitted", "LayerNorm, linear decoder refitted", ORANGE, ".:", True, False, _refitted("layernorm"),
        compared=_all_layers,
    ),
    Entry(
        "running_statistics", "running statistics", PURPLE, "o-", True, True, _rfsq("frozen_layernorm"),
        compared=_all_layers, analysed=_every_prefix, space=_steps_of_rfsq,
    ),
    Entry(
        "learned_scale", "learned scale", GREEN, "o--", True, True, _rfsq("learned_scale"),
        compared=_all_layers, analysed=_every_prefix, space=_steps_of_rfsq,
    ),
    Entry(
        "fixed_scale", "fixed scale", BLUE, "o-", True, True, _rfsq("scale"),
        measured=_together(_every_prefix, _sweep), compared=_all_layers, played=_few_layers,
        analysed=_every_prefix, predicted=_layers_for_a_policy("scale", _enough_for_a_draft),
        networks=_swept("scale", "step"), space=_steps_of_rfsq,
        rules=("parallel_argmax", "autoregressive", "soft"), phase2=True, family="rfsq",
    ),
    Entry(
        "naive_by_fixed_scale", "naive tokens, fixed scale's decoder", GREY, "o:", True, False, _crossed("scale"),
        compared=_all_layers, reads="naive",
    ),
    Entry(
        "naive_by_layernorm", "naive tokens, LayerNorm's decoder", GREY, "o:", True, False, _crossed("layernorm"),
        compared=_all_layers, reads="naive",
    ),
    Entry(
        "naive_by_retrained", "naive tokens, naive decoder trained on", GREY, "o:", True, False, _retrained,
        compared=_all_layers, reads="naive", space=_steps_of_rfsq,
    ),
    Entry(
        "naive_by_chunk_decoder", "naive tokens, decoder of whole chunks", GREY, "o:", True, False, _by_whole_chunks,
        compared=_all_layers, reads="naive", kept=False,
    ),
    Entry(
        "naive_chunk", "naive, whole chunk", GREY, "v--", True, True, _whole_chunks("none"),
        measured=_together(_every_prefix, _sweep), costed=_all_layers, networks=_chunk_networks("none"),
        family="naive", kept=False,
    ),
    Entry(
        "fixed_scale_chunk", "fixed scale, whole chunk", BLUE, "v--", True, True, _whole_chunks("scale"),
        measured=_together(_every_prefix, _sweep), costed=_all_layers, networks=_chunk_networks("scale"),
        family="rfsq", kept=False,
    ),
    Entry(
        "residual_vq", "ResidualVQ", PURPLE, "P-", True, True, _learned("residual_vq"),
        measured=_every_quantizer, costed=at("quantizers", NUM_QUANTIZERS),
        networks=lambda full: [Network("residual_vq", "step")], kept=False,
    ),
    Entry(
        "grouped_residual_fsq", "GroupedResidualFSQ", GREEN, "P-", True, True, _learned("grouped_residual_fsq"),
        measured=_every_quantizer, costed=at("quantizers", NUM_QUANTIZERS),
        networks=lambda full: [Network("grouped_residual_fsq", "step")], kept=False,
    ),
    Entry(
        "oat", "OAT-style", OCHRE, "d-", True, True, _transformer("oat"),
        measured=_where_trained("oat", at("registers", *range(1, REGISTERS + 1))), played=_all_registers,
        predicted=_all_registers, networks=_transformers("oat", 1), space=_sequence_of_a_chunk,
    ),
    Entry(
        "quest", "QueST-style", OCHRE, "d--", True, False, _transformer("quest"),
        measured=_where_trained("quest", at("steps_a_token", *QUEST_STEPS)), played=_quests_own,
        costed=_where_trained("quest", at("steps_a_token", *QUEST_STEPS)), predicted=_quests_own,
        networks=_transformers("quest", *QUEST_STEPS), space=_sequence_of_a_chunk,
    ),
    Entry(
        "bins", "equal bins", OCHRE, "s-", True, False, _bins,
        measured=at("bins", 4, 8, 16, 32, 64, 128, 256), compared=at("bins", 16, 64, 256),
        played=at("bins", 8, 16, 64, 256), predicted=_policy_bins, space=_bins_of_a_step,
        rules=("soft",), family="bins",
    ),
    Entry(
        "beast", "BEAST-style", GREEN, "h-", True, False, _beast, measured=_beast_points, compared=_half_as_many_points,
    ),
    Entry(
        "klt", "KLT, allocated levels", OLIVE, "x:", True, False, _klt,
        measured=_at_rates(*FITTED_RATES), costed=_at_rates(SHOWN_RATE),
    ),
    Entry(
        "fast", "FAST-style", ORANGE, "^-", False, False, _fast,
        measured=at("scale", 0.5, 1, 2, 3, 4, 5, 7, 10, 14, 20, 28, 40, 56, 80, 112),
        played=_together(at("scale", 10), _at_rates(*PLAYED_RATES)), costed=at("scale", 5, 10),
        sequences=at("scale", 10),
        family="fast",
    ),
    Entry(
        "fast_quantile", "FAST-style, q01-q99", ORANGE, "^:", False, False, _fast_quantile,
        measured=at("scale", 2, 5, 10, 20), costed=at("scale", 10),
        family="fast",
    ),
    Entry(
        "klt_rfsq_fixed", "KLT-RFSQ of fixed length", SKY, "D--", True, True, _fixed,
        measured=_fixed_counts(*FITTED_RATES), played=_at_rates(*PLAYED_RATES), predicted=_policy_codes,
        beside_fast=_fixed_counts(*EQUAL_RATES), space=_codes_of_a_chunk,
        rules=("soft",), family="klt_rfsq",
    ),
    Entry(
        "klt_rfsq_variable", "KLT-RFSQ of variable length", SKY, "D-", False, False, _variable,
        measured=_at_rates(*FITTED_RATES), played=_at_rates(*PLAYED_RATES), costed=_at_rates(SHOWN_RATE),
        beside_fast=_at_rates(*(rate for rate in EQUAL_RATES if rate in FITTED_RATES)), family="klt_rfsq",
    ),
)  # fmt: skip


BROUGHT = "brought:"  # before the name of a codec that is not of the catalogue


class Catalogue(dict[str, Entry]):
    """Name -> entry. A codec that was brought has one by its name, which a finished run's rows tell."""

    def __missing__(self, name: str) -> Entry:
        if not name.startswith(BROUGHT):
            raise KeyError(name)
        return brought_entry(name)


def catalogue() -> Catalogue:
    """Name -> entry, in order."""
    return Catalogue({entry.name: entry for entry in ENTRIES})


def proposed() -> list[str]:
    """Entries whose tokens may be recommended: those that play without `full`. Others are compared alone."""
    return [entry.name for entry in ENTRIES if entry.rules]


def decided(fitting: Fitting) -> Setting:
    """Of the settings, what data decide: layers of the tokens that a policy predicts, and the bits of grippers.

    Folds take those of the first, so that they measure the same.
    """
    predicted = [(entry.name, setting) for entry in ENTRIES for setting in entry.predicted(fitting)]
    layers = {name: setting["layers"] for name, setting in predicted if setting.get("layers")}
    return Setting.of(**layers, **{GRIPPER_BITS: klt_rfsq_of(fitting)[0].model.gripper_bits})


def entries(fitting: Fitting) -> list[Entry]:
    """Those of the catalogue, and one for each codec that was brought."""
    return [*ENTRIES, *(brought_entry(BROUGHT + codec.name) for codec in fitting.brought)]


def brought_entry(name: str) -> Entry:
    """What is known of it beforehand. Its settings are its own business, so that it has one, without a name."""

    def codecs(fitting: Fitting, setting: Setting) -> Sequence[BroughtCodec]:
        return [codec for codec in fitting.brought if BROUGHT + codec.name == name]

    def sequences(fitting: Fitting) -> Sequence[Setting]:
        return [Setting(()) for codec in codecs(fitting, Setting(())) if codec.varies and codec.can_be_sent()]

    alone: Settings = lambda fitting: [Setting(())]  # noqa: E731
    return Entry(
        name, name.removeprefix(BROUGHT), "#000000", "*", False, False, codecs,
        measured=alone, compared=alone, played=alone,
        predicted=lambda fitting: [] if name in not_predicted(fitting) else alone(fitting),
        space=_sequence_of_a_chunk, sequences=sequences,
    )  # fmt: skip


def not_predicted(fitting: Fitting) -> dict[str, NotPredicted]:
    """Name -> why no policy predicts the tokens of a codec that was brought; those that are predicted are left out."""
    whys = {BROUGHT + codec.name: _why_not_predicted(codec, fitting.full) for codec in fitting.brought}
    return {name: why for name, why in whys.items() if why}


def _why_not_predicted(codec: BroughtCodec, full: bool) -> NotPredicted:
    most = codec.lengths[1]
    if most == 0:
        return "no_tokens"
    if most * (codec.vocabulary + codec.varies) > MOST_LOGITS:
        return "too_many_values"
    if codec.varies and not full:
        return "varies"
    return "" if codec.can_be_sent() else "cannot_be_sent"


def of_family(*families: Family) -> list[str]:
    """Names of the entries of some families."""
    return [entry.name for entry in ENTRIES if entry.family in families]
