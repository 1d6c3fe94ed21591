"""Tables of the evidence for the decision: codecs at equal bits, option B, small policies, rules and claims."""

from __future__ import annotations

from html import escape
from typing import Any

from workbook.common.table import Badge, Html, Table
from workbook.common.wording import less_or_more, number, share, signed_interval, with_interval
from workbook.evaluation.metrics import STAND_IN
from workbook.evaluation.policy.network import RULES
from workbook.report.tables.comparison import STAND_IN_NOTE, not_evidence
from workbook.training.baselines import FAMILIES
from workbook.verdict.recommendation import OPTION_TITLES, RULE_TITLES

Evidence = dict[str, Any]


def answer_block(results: Evidence) -> Html:
    """The three sentences that answer the report's question, and what to use."""
    recommendation = results["recommendation"]
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in recommendation["sentences"])
    count = recommendation["layers"]
    use = (
        f"Use {recommendation['checkpoint']} with {'one layer' if count == 1 else f'{count} layers'}, decoded by "
        f"{RULE_TITLES[recommendation['decode_rule']]}."
    )
    words = " ".join(
        f"{Badge(word).html} {escape(OPTION_TITLES[key])}" for key, word in recommendation["words"].items()
    )
    banner = not_evidence(results["verdict"]).html
    note = (
        f"{use} Errors are squared errors, which favour an expected value; the policies were not run in a simulator or "
        "on a robot."
    )
    return Html(f'<div class="verdict">{banner}{sentences}<p class="note">{escape(note)}</p><p>{words}</p></div>')


def rules_table(recommendation: Evidence) -> Table:
    """The rules that the recommendation was computed by, with the numbers they used."""
    rows = []
    for rule in recommendation["rules"]:
        interval = "-" if rule["interval"] is None else " to ".join(share(end) for end in rule["interval"])
        rows.append(
            [
                rule["question"],
                rule["threshold"],
                share(rule["measured"]),
                interval,
                rule["n"],
                Badge(rule["status"]),
                rule["if_met"],
            ]
        )
    header = ["rule", "threshold", "measured", "95 % interval", "n", "status", "if met"]
    return Table(header, rows, f"Declared before the run. {recommendation['decided_by']}")


def claims_table(claims: list[Evidence]) -> Table:
    rows = [[row["claim"], row["claimed"], row["measured"], Badge(row["word"]), row["why"]] for row in claims]
    return Table(["the guide's claim", "claimed", "measured", "", "how"], rows)


def equal_bits_table(rates: Evidence) -> Table:
    """RFSQ beside FAST-style tokens at the same bits."""
    rows = []
    for row in rates["against_fast"]:
        cells = [f"{row['rate']}", number(row["fast"])]
        for key in ("rfsq", "rfsq_fixed"):
            found = row[key]
            gain = found["less_than_fast"]
            against = "-" if gain["mean"] is None else f"{less_or_more(gain['mean'])}{signed_interval(gain)}"
            title = FAMILIES[found["family"]].title if found["family"] else "-"
            cells += [title, number(found["mse"]), against]
        rows.append(cells)
    header = [
        "bits a chunk",
        "FAST-style: MSE",
        "RFSQ's best",
        "MSE",
        "against FAST-style",
        "best of fixed length",
        "MSE",
        "against FAST-style",
    ]
    note = (
        "Reconstruction error of held-out episodes; MSE in normalised units squared; FAST-style at the better of two "
        "normalisers; between two settings of variable length interpolated linearly in bits, of a fixed length the "
        "one of most bits that is not above the rate."
    )
    return Table(header, rows, note)


def smallest_table(smallest: Evidence) -> Table:
    """The RFSQ of fewest bits that meets the guide's target, of the guide's architecture and of any."""
    titles = {"guide": "of the guide's architecture", "any": "of any RFSQ"}
    rows = [
        [title, FAMILIES[entry["family"]].title, entry["setting"], f"{entry['bits']:,.0f}",
         f"{entry['tokens_per_chunk']:,.0f}", with_interval(entry["errors"]["mse"])]
        for key, title in titles.items() if (entry := smallest[key])
    ]  # fmt: skip
    return Table(["smallest", "codec", "setting", "bits a chunk", "tokens", "MSE"], rows)


def codecs_table(codecs: list[Evidence]) -> Table:
    """Every codec and setting by its bits."""
    shown = {
        "position_mm": "position, mm",
        "rotation_deg": "rotation, degrees",
        "gripper_error_rate": "gripper wrong",
        STAND_IN: "drift at gripper switches, mm",
    }
    shown = {key: label for key, label in shown.items() if any(e["errors"][key]["mean"] is not None for e in codecs)}
    rows = [
        [
            FAMILIES[entry["family"]].title,
            entry["setting"],
            f"{entry['bits']:,.0f}",
            f"{entry['entropy']:,.0f}",
            f"{entry['tokens_per_chunk']:,.0f}",
            f"{entry['vocabulary']:,}",
            "fixed" if entry["fixed_length"] else "varies",
            "yes" if entry["prefix"] else "no",
            with_interval(entry["errors"]["mse"]),
            *(number(entry["errors"][key]["mean"]) for key in shown),
        ]
        for entry in codecs
    ]  # fmt: skip
    header = [
        "codec",
        "setting",
        "bits a chunk",
        "entropy, bits",
        "tokens",
        "vocabulary",
        "length",
        "prefix decodes",
        "MSE",
        *shown.values(),
    ]
    note = (
        f"From tokens alone. {STAND_IN_NOTE} Entropy: each code by itself, on the test part. Vocabulary: values of the "
        "largest token. "
        "ResidualVQ and GroupedResidualFSQ are trained for fewer batches than RFSQ, unless with --full."
    )
    return Table(header, rows, note)


def option_b_table(option_b: Evidence) -> Table:
    rows = [
        [
            row["title"],
            with_interval(row["mse"]),
            f"{less_or_more(row['less_than_naive']['mean'])}{signed_interval(row['less_than_naive'])}",
        ]
        for row in option_b["rows"].values()
        if row["less_than_naive"]["mean"] is not None
    ]
    return Table(
        ["tokens and decoder", "MSE from tokens", "error against naive's own decoder"],
        rows,
        f"The retrained decoder is {option_b['best']}.",
    )


def policy_table(phase2: Evidence) -> Table:
    """Error of decoded predicted actions: codec, decode rule, amount of data."""
    errors = ("mse", "position_mm", "rotation_deg", "joint_length", "gripper_error_rate", "drift_mm")
    labels = ("MSE", "position, mm a step", "rotation, degrees a step", "joints", "gripper wrong", "drift, mm")
    rows = []
    for amount in map(str, phase2["amounts"]):
        entries = [("regression, no tokens", "-", phase2["regression"][amount], "-")]
        for subject in phase2["subjects"].values():
            for rule, entry in subject["by_amount"][amount].items():
                if subject["layers"] == 1 and rule.startswith("by_layer"):
                    continue  # the same as an independent argmax
                bits = entry.get("bits_per_chunk")
                name, *other = rule.split(", ")
                told = RULE_TITLES[name] + (", retrained decoder" if other else "")
                entries.append((subject["title"], told, entry, f"{sum(bits) / len(bits):,.0f}" if bits else "-"))
        rows += [
            [
                amount,
                title,
                rule,
                *(
                    with_interval(entry["errors"][key]) if key == "mse" else number(entry["errors"][key]["mean"])
                    for key in errors
                ),
                bits,
            ]
            for title, rule, entry, bits in entries
        ]
    keep = [i for i, key in enumerate(errors) if any(row[3 + i] not in ("-", "none in the data") for row in rows)]
    header = ["train episodes", "tokens", "decode rule", *(labels[i] for i in keep), "cross-entropy, bits a chunk"]
    rows = [[*row[:3], *(row[3 + i] for i in keep), row[-1]] for row in rows]
    weights = ", ".join(f"{subject['title']} {subject['weights']:,}" for subject in phase2["subjects"].values())
    note = (
        "Error of the decoded predicted action against the demonstrator's, after the demonstrator's own past; drift is "
        f"that of the summed error of an episode; {phase2['seeds']} seeds. Cross-entropy counts what a codec says, and "
        f"cannot be compared across codecs. Weights of the networks: {weights}."
    )
    return Table(header, rows, note)


def accuracy_table(phase2: Evidence) -> Table:
    """Accuracy of each layer beside what always guessing the commonest code gives, and the layer's entropy."""
    most = str(phase2["amounts"][-1])
    rows = []
    for subject in phase2["subjects"].values():
        entry = subject["by_amount"][most]
        for layer, (majority, entropy) in enumerate(zip(subject["majority"], subject["entropy"], strict=True)):
            rows.append([
                subject["title"], f"{layer}", share(majority), f"{entropy:.2f}",
                share(entry["independent"]["accuracy"][layer]), share(entry["by_layer"]["accuracy"][layer]),
            ])  # fmt: skip
    header = [
        "tokens",
        "layer",
        "commonest code",
        "entropy, bits a token",
        "accuracy, independent",
        "accuracy, layer by layer",
    ]
    note = (
        f"Policies trained on {most} episodes; the commonest code is that of the test tokens. Layer 0 of KLT-RFSQ is "
        "the gripper's token, where there is a gripper. Layers that no policy predicts are left out."
    )
    return Table(header, rows, note)


def draft_table(phase2: Evidence) -> Table:
    """Share of coarse tokens on which a draft of half the width agrees with the main model."""
    rows = []
    for key, by_rule in phase2["draft"].items():
        for rule in (rule for rule in RULES if rule in by_rule):
            shares = by_rule[rule]["mean"]
            rows.append(
                [
                    phase2["subjects"][key]["title"],
                    RULE_TITLES[rule],
                    ", ".join(map(share, shares)),
                    share(sum(shares) / len(shares)),
                ]
            )
    header = ["tokens", "decode rule", "agreement, L0 on", "mean"]
    return Table(
        header,
        rows,
        "Speculative decoding keeps what draft and main agree on. Dead layers, where they always agree, are left out.",
    )
