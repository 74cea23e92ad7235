"""The mutation drill stays fit to run: what it changes stands in the code as it is."""

import pytest

from benchmarks.drill_mutations import MUTATIONS, Mutation, mutated


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.name)
def test_a_mutation_still_finds_its_place(mutation: Mutation) -> None:
    compile(mutated(mutation), mutation.file, "exec")
