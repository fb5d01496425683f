"""A network's signals and gradients, compiled and run, as a record.

    Network, inits × activations ──pairings──▶ blocks ──turns──▶ what runs when, and where
    block ──plan──▶ StackProgram (what is compiled) + Numbers (what it is fed)
    engine.run(program, numbers) ──dispatch──▶ statistics ──grid.write──▶ record

Read `pairings`, `plan`, `engine` and `dispatch` in this order; `sweep` is the front.
"""
