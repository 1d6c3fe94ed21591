"""Tables of small policies, and of the decision that follows from them."""

from __future__ import annotations

from html import escape

from workbook.codecs.catalogue import BROUGHT
from workbook.common.numbers import number
from workbook.common.table import Html, Table
from workbook.common.targets import SAME_WITHIN
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.policy.evidence import NAIVE, OWN, REGRESSION, PolicyEvidence, PredictedCodec
from workbook.evaluation.policy.network import JOINT_RULES, RULES, TOKEN_RULES
from workbook.report.tables.verdict import not_evidence
from workbook.report.text import words
from workbook.report.text.badges import badge
from workbook.report.text.codecs import title
from workbook.report.text.recommendation import headline, options, sentences, use

NONE = "-"


def answer_block(run: Evidence) -> Html:
    """The answer to the report's question, what it rests on, and what to use."""
    titles, answer = words("recommendation").option_titles, headline(run)
    first, *others = sentences(run)
    told = "".join(f"<p>{escape(sentence)}</p>" for sentence in (first.removeprefix(answer).strip(), *others))
    verdicts = run.results["recommendation"]["words"]
    badges = " ".join(f"{badge(verdicts[key]).html} {escape(titles[key])}" for key in ("A", "B"))
    note = f'<p class="note">{escape(use(run))}</p>'
    answered = f'<p class="answer">{escape(answer)}</p><p>{badges}</p>'
    return Html(f'<div class="verdict">{not_evidence(run).html}{answered}{told}{note}</div>')


def rules_table(run: Evidence) -> Table:
    """The rules that the recommendation was computed by, with the numbers they used."""
    said, phrases = words("recommendation"), words("phrases")
    rows = [
        [
            said.questions[rule["key"]],
            said.threshold(rule["limit"]),
            phrases.share(rule["measured"]),
            said.interval(rule["interval"]),
            phrases.tested(rule["episodes"], rule["seeds"], run.folds),
            badge(rule["status"]),
            said.if_met[rule["key"]],
        ]
        for rule in run.results["recommendation"]["rules"]
    ]
    return Table(
        said.rules_header, rows, said.decided_by(SAME_WITHIN, run.results["recommendation"]["evidence"] == "loop")
    )


def options_table(run: Evidence) -> Table:
    """What the run says about each way to go on."""
    said, verdicts = words("recommendation"), run.results["recommendation"]["words"]
    rows = [[said.option_titles[key], badge(verdicts[key]), text] for key, text in options(run).items()]
    return Table(said.options_header, rows)


def _measured(policy: PolicyEvidence) -> list[str]:
    """Errors of which the data have something."""
    return [metric for metric in words("policy").errors if policy.regression(metric=metric).mean is not None]


def summary_table(run: Evidence) -> Table:
    """The policy without tokens, each codec's at its best rule, and what was brought and is not predicted."""
    said, policy, metrics = words("policy"), run.policy, _measured(run.policy)
    difference, naive = words("phrases").difference, policy.of(NAIVE)
    figures = [policy.regression(metric=metric) for metric in metrics]
    rows = [[said.regression, NONE, difference(policy.contrasts()["regression_for_naive"]), *_cells(figures)]]
    for codec in policy.codecs:
        rule = policy.best_rule(codec)
        gain = NONE if codec == naive else difference(policy.less(naive, policy.best_rule(naive), codec, rule))
        figures = [policy.error(codec, rule, metric=metric) for metric in metrics]
        rows.append([title(*codec), said.rule_labels[rule], gain, *_cells(figures)])
    rows += [
        [title(name), said.not_run(why), *[NONE] * (1 + len(metrics))] for name, why in policy.not_predicted.items()
    ]
    note, brought = said.summary_note, [codec for codec in policy.codecs if codec.codec.startswith(BROUGHT)]
    if brought:
        said_of = [(title(*codec), policy.malformed(codec), "soft" in policy.rules(codec)) for codec in brought]
        note = f"{note} {said.brought(said_of)}"
    return Table([*said.summary_header, *(said.errors[metric] for metric in metrics)], rows, note)


def network_table(run: Evidence) -> Table:
    """How long each kind of policy was trained, with what noise, and how large it is."""
    said, policy = words("policy"), run.policy
    kept = policy.policies[policy.policies.chosen & (policy.policies.training_set_size == policy.most)]
    rows = []
    for (codec, setting, heads), networks in kept.groupby(["codec", "setting", "heads"], sort=False):
        first, noises = networks.iloc[0], dict.fromkeys(networks.noise)  # folds choose each its own
        rows.append([
            said.regression if codec == REGRESSION.codec else title(codec, setting),
            NONE if codec == REGRESSION.codec else said.heads[heads],
            ", ".join(f"{noise:g}" for noise in noises),
            ", ".join(f"{steps:,}" for steps in networks.steps), number(float(networks.validation_mse.mean())),
            f"{first.head_width}", f"{first.weights:,}",
        ])  # fmt: skip
    return Table(said.network_header, rows, said.network_note(policy.config))


def policy_table(run: Evidence) -> Table:
    """Error of decoded predicted actions: training-set size, codec, decode rule."""
    said, policy, metrics = words("policy"), run.policy, _measured(run.policy)
    rows = []
    for size in policy.training_set_sizes:
        figures = [policy.regression(size, metric) for metric in metrics]
        rows.append([f"{size}", said.regression, NONE, *_cells(figures), NONE])
        for codec in policy.codecs:
            for rule, decoder in _told(policy, codec):
                figures = [policy.error(codec, rule, size, decoder=decoder, metric=metric) for metric in metrics]
                by = "" if decoder == OWN else f", {said.readers.get(decoder) or title(decoder)}"
                bits = NONE
                if decoder == OWN and rule in (*TOKEN_RULES, JOINT_RULES[0]):
                    bits = f"{sum(policy.of_layers(codec, 'cross_entropy_bits', rule, size)):,.0f}"
                rows.append([f"{size}", title(*codec), said.rules[rule] + by, *_cells(figures), bits])
    header = [*said.policy_header, *(said.errors[metric] for metric in metrics), said.cross_entropy]
    return Table(header, rows, said.policy_note(policy.seeds))


def _told(policy: PolicyEvidence, codec: PredictedCodec) -> list[tuple[str, str]]:
    """Rules and decoders; what else reads the tokens reads those of heads apart."""
    rules = policy.told_rules(codec)
    return [(rule, own) for own in policy.decoders(codec) for rule in rules if own == OWN or rule in RULES]


def _cells(figures: list) -> list[str]:
    """The first figure, the MSE, with its interval."""
    return [words("phrases").with_interval(figures[0]), *(number(figure.mean) for figure in figures[1:])]


def accuracy_table(run: Evidence) -> Table:
    """Accuracy of each layer beside what always guessing the majority class gives, and the layer's entropy."""
    said, policy, share = words("policy"), run.policy, words("phrases").share
    rows = []
    for codec in policy.codecs:
        columns = [policy.of_layers(codec, column) for column in ("majority_share", "entropy_bits")]
        columns += [policy.of_layers(codec, "accuracy", rule) for rule in TOKEN_RULES]
        for layer, (majority, entropy, *accuracies) in enumerate(zip(*columns, strict=True)):
            rows.append([title(*codec), f"{layer}", share(majority), f"{entropy:.2f}", *map(share, accuracies)])
    return Table(said.accuracy_header, rows, said.accuracy_note(policy.most))


def draft_table(run: Evidence) -> Table:
    """Share of coarse tokens on which a draft of half the width agrees with the main model."""
    said, policy, share = words("policy"), run.policy, words("phrases").share
    rows = []
    for codec in policy.drafted:
        for rule in TOKEN_RULES:
            shares = policy.agreement(codec, rule)
            mean = share(sum(shares) / len(shares))
            rows.append([title(*codec), said.rules[rule], ", ".join(map(share, shares)), mean])
    return Table(said.draft_header, rows, said.draft_note)
