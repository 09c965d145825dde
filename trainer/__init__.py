"""The reference trainer: GPT pre-training that uses the Lossguard SDK exactly as any user would.

    python -m trainer run --recipe tiny

config   recipes: what a run is made of, checked before anything is built
data     tokens, and a data order that is a pure function of (seed, batch index)
model    the GPT
schedule the learning rate as a function of the step, and AdamW
faults   trouble planted on purpose
train    the loop
display  what the person at the terminal sees
"""
