"""Next token: what the model predicts after a fixed prompt, and how that changed over training.

In the URL: ?run=ID&probe=N&step=..&temperature=..&prompt=..
"""

import streamlit as st

from dashboard import formatting, url_state
from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.data.trainer import explorer
from dashboard.data.trainer.explorer import ExplorerAnswer, ExplorerError
from dashboard.figures import component
from dashboard.views import frame
from dashboard.views.next_token import distribution, figure
from dashboard.views.next_token.distribution import Distribution, Precision
from db.cli.command_engine import as_typed_here
from db.queries import StoredProbe
from lossguard.vocabulary.wire import Probe

METRIC_WIDTH_PIXELS = 175  # two metrics fit side by side on a phone
NEWEST = "newest"
MAX_PROMPT = 2000
"""Characters."""
ASK_HELP = as_typed_here(
    "The last token is the true one, which the model has to predict. `python -m trainer explore CHECKPOINT` answers; "
    "name two checkpoints to compare them. The temperature above changes the bars and no loss."
)
HOW_TO = """\
A probe records the next-token distribution after a fixed prompt, at regular intervals during training. The trainer
records some by default:

```bash
python -m trainer run --recipe tiny
```

In your own loop, call `run.probe(step, ...)`; see `lossguard.torch.next_token`.
"""


def page(facts: RunFacts) -> None:
    frame.back_to_run(facts)
    st.header("Next token", anchor=False)
    prompts = cached.prompts(facts)
    if not prompts:
        st.info("This run has recorded no probes.", icon=":material/info:")
        st.markdown(as_typed_here(HOW_TO))
        ask_checkpoints(1.0)
        return
    probes = cached.probes(facts, select_prompt(prompts))
    live = [each for each in probes if each.live] or probes
    stored, temperature = controls(live)
    sampled, plain = (distribution.at_temperature(stored.probe, value) for value in (temperature, 1.0))
    if sampled is None or plain is None:
        st.error(f"The model's output at step {stored.step:,} is not a distribution: {distribution.REASON}.")
    else:
        metrics(stored.probe, sampled, plain)
        explanation(stored, temperature)
        component.show(figure.bars(stored.probe, sampled, plain), key="next-token-bars", label="Next tokens")
    ask_checkpoints(temperature)
    st.subheader("Over training", anchor=False)
    component.show(figure.history(probes, stored.step), key="next-token-history", label="Prediction over training")


def select_prompt(prompts: list[str]) -> str:
    """The prompt that the URL names by its position, else the first one."""
    named = url_state.number("probe") or 0
    position = st.selectbox(
        "Prompt",
        range(len(prompts)),
        index=named if named < len(prompts) else 0,
        format_func=lambda index: figure.quoted(prompts[index]),
        key=f"prompt-{named}",
    )
    if position != named:
        url_state.set_number("probe", position)
        st.rerun()
    return prompts[position]


def controls(live: list[StoredProbe]) -> tuple[StoredProbe, float]:
    """The selected probe and the temperature. At its end, the step slider follows the newest probe."""
    by_step = {str(each.step): each for each in live}
    with st.container(horizontal=True):
        step = st.select_slider(
            "Step", [*by_step, NEWEST], NEWEST, key="step", bind="query-params", width=420,
            format_func=lambda step: step if step == NEWEST else f"{int(step):,}",
        )  # fmt: skip
        temperature = st.slider(
            "Sampling temperature", 0.1, 3.0, 1.0, 0.05, key="temperature", bind="query-params", width=300,
            help="Probabilities become proportional to p^(1/T): a low temperature is greedy, a high one random.",
        )  # fmt: skip
    return by_step.get(step, live[-1]), float(temperature)


def metrics(probe: Probe, sampled: Distribution, plain: Distribution) -> None:
    """Show the metrics. Each changes with the temperature, except the loss; the change stands below."""
    width = METRIC_WIDTH_PIXELS
    with st.container(horizontal=True):
        if probe.target is not None:
            token = formatting.escape_markdown_verbatim(figure.quoted(probe.target))
            st.metric("True token", token, width=width)
            loss = f"{formatting.number(distribution.surprisal(probe))} nats"
            loss_help = "At temperature 1, as in the loss. The slider does not change it."
            st.metric("-log P (as in the loss)", loss, width=width, help=loss_help)
            change = _change(sampled.target, plain.target)
            probability = formatting.percent(sampled.target)
            st.metric("Sampling probability", probability, change, delta_color="off", width=width)
        change = _change(sampled.entropy, plain.entropy, "nats")
        entropy = f"{sampled.precision} {sampled.entropy:.3g} nats".strip()
        st.metric("Entropy", entropy, change, delta_color="off", width=width)
        change = _change(sampled.effective_choices, plain.effective_choices, "")
        choices = f"{sampled.precision} {sampled.effective_choices:.3g}".strip()
        choices_help = "exp(entropy): the number of equally likely tokens with the same entropy."
        if plain.precision is not Precision.EXACT:
            choices_help += (
                f" At temperature 1 it lies between {plain.fewest_choices:.3g} and {plain.effective_choices:.3g}, "
                "because the probe does not name all tokens. next_token(.., entropy=True) records it exactly."
            )
        st.metric("Effective choices", choices, change, delta_color="off", width=width, help=choices_help)


def explanation(stored: StoredProbe, temperature: float) -> None:
    surprisal = distribution.surprisal(stored.probe)
    value = "" if surprisal is None else f" (here {formatting.number(surprisal)} nats)"
    st.caption(
        f"Recorded after step {stored.step:,}. The temperature changes what is sampled, not what is learned: "
        f"the loss is always -log P of the true token at temperature 1{value}."
    )
    if stored.probe.rest_count:
        extreme = "largest" if temperature > 1 else "smallest"
        bound = "" if temperature == 1 else f", which gives them the {extreme} possible share"
        st.caption(
            f"Of the other {stored.probe.rest_count:,} tokens, only the total probability is stored. They are assumed "
            f"to be equally likely{bound}."
        )


def ask_checkpoints(temperature: float) -> None:
    """Show the predictions of checkpoints after any prompt, side by side; a process of the trainer answers."""
    st.subheader("Ask a checkpoint", anchor=False)
    prompt = st.text_input(
        "Prompt of your own", key="prompt", bind="query-params", max_chars=MAX_PROMPT, help=ASK_HELP,
        placeholder="def __init__(self",
    )  # fmt: skip
    if not prompt:
        return
    try:
        answers = explorer.ask(prompt)
    except ExplorerError as problem:
        st.info(formatting.escape_markdown(str(problem)), icon=":material/info:")
        return
    for place, (column, answer) in enumerate(zip(st.columns(len(answers)), answers, strict=True)):
        with column:
            show_answer(answer, temperature, key=f"asked-{place}")


def show_answer(answer: ExplorerAnswer, temperature: float, *, key: str) -> None:
    probe = answer.probe
    st.markdown(f"**{formatting.escape_markdown(answer.name)}**")
    sampled, plain = (distribution.at_temperature(probe, value) for value in (temperature, 1.0))
    if sampled is None or plain is None:
        st.error(f"The model's output is not a distribution: {distribution.REASON}.")
        return
    loss = formatting.number(distribution.surprisal(probe))
    true = formatting.escape_markdown_verbatim(figure.quoted(probe.target or ""))
    st.caption(
        f"True token {true}: a loss of {loss} nats at any temperature; {plain.effective_choices:.3g} effective choices."
    )
    component.show(figure.bars(probe, sampled, plain), key=key, label=f"Next tokens of {answer.name}")


def _change(sampled: float | None, plain: float | None, unit: str | None = None) -> str | None:
    """The difference from temperature 1; None if there is none. It has no colour: neither direction is better."""
    if sampled is None or plain is None or abs(sampled - plain) < 1e-9:
        return None
    return f"{100 * (sampled - plain):+.3g} points" if unit is None else f"{sampled - plain:+.3g} {unit}".strip()


frame.show_run(page)
