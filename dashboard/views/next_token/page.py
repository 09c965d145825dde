"""Next token: what the model expects after a fixed prompt, and how that changed over training.

In the URL: ?run=ID&probe=N&step=..&temperature=..
"""

import streamlit as st

from dashboard import formatting, url_state
from dashboard.data.facts import RunFacts
from dashboard.figures import component
from dashboard.views import frame
from dashboard.views.next_token import cached_probes, distribution, figure
from dashboard.views.next_token.distribution import Distribution
from db.queries import StoredProbe
from lossguard.probe import Probe

WIDTH = 175  # pixels of a number: two side by side on a phone
NEWEST = "newest"
HOW_TO = """\
This run has recorded no probes. A probe is a fixed prompt whose next-token distribution is kept while the model learns:

```bash
python -m trainer run --recipe tiny
```

records some by itself; in a loop of your own, `run.probe(step, ...)` does (`lossguard.torch.next_token`).
"""


def page(facts: RunFacts) -> None:
    label = formatting.escape_markdown(formatting.run_title(facts.run))
    st.page_link("views/run/page.py", label=label, icon=":material/arrow_back:", query_params={"run": facts.run.id})
    st.header("Next token", anchor=False)
    prompts = cached_probes.prompts(facts)
    if not prompts:
        st.info("No probes yet.", icon=":material/info:")
        st.markdown(HOW_TO)
        return
    probes = cached_probes.probes(facts, prompt(prompts))
    live = [each for each in probes if each.live] or probes
    taken, temperature = controls(live)
    now, plain = (distribution.at(taken.probe, value) for value in (temperature, 1.0))
    if now is None or plain is None:
        st.error(f"At step {taken.step:,} the model's output is no distribution: it is NaN or infinite.")
    else:
        numbers(taken.step, taken.probe, now, plain, temperature)
        component.show(figure.bars(taken.probe, now, plain), key="next-token-bars", label="Next tokens")
    st.subheader("Over training", anchor=False)
    component.show(figure.history(probes, taken.step), key="next-token-history", label="Prediction over training")


def prompt(prompts: list[str]) -> str:
    """The prompt of the URL, by its place; the first one when there is none."""
    named = url_state.number("probe") or 0
    place = st.selectbox(
        "Prompt",
        range(len(prompts)),
        index=named if named < len(prompts) else 0,
        format_func=lambda index: figure.shown(prompts[index]),
        key=f"prompt-{named}",
    )
    if place != named:
        url_state.choose_number("probe", place)
        st.rerun()
    return prompts[place]


def controls(live: list[StoredProbe]) -> tuple[StoredProbe, float]:
    """The newest probe is followed as long as the slider stands at its end."""
    by_step = {str(each.step): each for each in live}
    with st.container(horizontal=True):
        chosen = st.select_slider(
            "Step", [*by_step, NEWEST], NEWEST, key="step", bind="query-params", width=420,
            format_func=lambda step: step if step == NEWEST else f"{int(step):,}",
        )  # fmt: skip
        temperature = st.slider(
            "Temperature of sampling", 0.1, 3.0, 1.0, 0.05, key="temperature", bind="query-params", width=300,
            help="Probabilities become proportional to p^(1/T): low is greedy, high is random.",
        )  # fmt: skip
    return by_step.get(chosen, live[-1]), float(temperature)


def numbers(step: int, probe: Probe, now: Distribution, plain: Distribution, temperature: float) -> None:
    surprise = distribution.surprise(probe)
    with st.container(horizontal=True):
        if probe.target is not None:
            st.metric("True token", formatting.escape_markdown_verbatim(figure.shown(probe.target)), width=WIDTH)
            loss_help = "At temperature 1, as the loss counts it: the slider does not move it."
            st.metric("-log P, in the loss", f"{formatting.number(surprise)} nats", width=WIDTH, help=loss_help)
            change = _change(now.target, plain.target)
            st.metric("Sampled with", formatting.percent(now.target), change, delta_color="off", width=WIDTH)
        change = _change(now.entropy, plain.entropy, "nats")
        st.metric("Entropy", f"{now.entropy:.3g} nats", change, delta_color="off", width=WIDTH)
        help_text = "exp(entropy): so many equally likely tokens would be as uncertain."
        change = _change(now.choices, plain.choices, "")
        st.metric("Effective choices", f"{now.choices:.3g}", change, delta_color="off", width=WIDTH, help=help_text)
    told = f"Taken after step {step:,}. The temperature changes what is sampled, never what is learnt or reported:"
    here = "" if surprise is None else f" Here that is {formatting.number(surprise)} nats, wherever the slider stands."
    st.caption(f"{told} the loss is -log P of the true token at temperature 1.{here}")
    if probe.rest_count:
        bound = "" if temperature == 1 else f": {'the most' if temperature > 1 else 'the least'} that they can get"
        st.caption(f"{probe.rest_count:,} tokens are kept as one sum and taken for equally likely{bound}.")


def _change(now: float | None, plain: float | None, unit: str | None = None) -> str | None:
    """Against temperature 1; none there. Neither is good or bad: no colour would say so."""
    if now is None or plain is None or abs(now - plain) < 1e-9:
        return None
    return f"{100 * (now - plain):+.3g} points" if unit is None else f"{now - plain:+.3g} {unit}".strip()


frame.follow_run(page)
