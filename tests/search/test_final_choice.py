"""What a final retrains: chosen by validation, once, and told in its manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution

from pixeltune.config import TrialConfig
from pixeltune.errors import ConfigError, DataError, StoreError
from pixeltune.search.final import choose, moved_on, open_final, require_final_data, require_search, select
from pixeltune.search.searcher import FixedTrials
from pixeltune.search.state import SearchState
from pixeltune.space import FinalSpace, Resources, SearchSpace
from tests.support.results import make_store
from tests.support.toy_final import asked, final_state, searched
from tests.support.toy_search import BEGUN, FINISHED, play, reported, toy_config, toy_space, toy_state


def names(selection: Any) -> list[str]:
    return [item.trial for item in selection.chosen]


def test_the_best_finished_are_chosen_and_pruned_ones_are_no_models(tmp_path: Path) -> None:
    state = searched(tmp_path, [(2.0, 400), ("pruned", 0), (1.5, 400), ("diverged", 0), (1.8, 400)])
    rows, manifest = state.store.trials(), state.store.manifest()
    assert names(choose(rows, manifest, top=2)) == ["00002", "00004"]
    assert choose(rows, manifest, top=3).left_out == ()
    every = choose(rows, manifest, top=9)
    assert names(every) == ["00002", "00004", "00000"]
    assert every.left_out == (
        "9 configurations were asked for and 3 are there",
        "1 pruned, 1 diverged: no finished models",
    )
    assert [item.value for item in every.chosen] == [1.5, 1.8, 2.0]


def test_a_configuration_counts_once_whatever_its_seed(tmp_path: Path) -> None:
    vary = {"seed": IntDistribution(0, 9)}
    state = toy_state(tmp_path, toy_space(vary=vary, scheduler=None))
    for seed, bits in ((3, 1.6), (3, 1.7), (8, 1.5)):
        plan = state.plan({"seed": seed})
        begun = {"facts": {"config_key": plan.config.key()}, "resumed": []}
        play(state, plan, begun, reported(400, bits), FINISHED)
    found = choose(state.store.trials(), state.store.manifest(), top=2)
    assert names(found) == ["00002"]
    assert found.left_out[1] == "2 repeat a configuration"
    assert list(found.seeds(2)) == [9, 10], "not the seed that was lucky"


def test_an_objective_to_maximise_and_one_of_several(tmp_path: Path) -> None:
    state = searched(tmp_path, [(2.0, 400), (1.5, 400)], objectives=("num_parameters", "valid_bits_per_dim"))
    rows, manifest = state.store.trials(), state.store.manifest()
    assert names(choose(rows, manifest, top=1)) == ["00001"], "the first objective"
    rows[0]["sample_images_per_second"], rows[1]["sample_images_per_second"] = 20.0, 10.0
    faster = replace(manifest, objectives=("sample_images_per_second",), directions=("maximize",))
    assert names(choose(rows, faster, top=1)) == ["00000"]


def test_trials_by_name(tmp_path: Path) -> None:
    state = searched(tmp_path, [(2.0, 400), ("pruned", 0), (1.5, 400)])
    rows, manifest = state.store.trials(), state.store.manifest()
    found = choose(rows, manifest, top=None, trials=("0", "00002"))
    assert names(found) == ["00002", "00000"]
    assert (found.top, found.trials) == (None, ("0", "00002"))
    with pytest.raises(StoreError, match="toy/00001 is pruned"):
        choose(rows, manifest, top=None, trials=("1",))
    with pytest.raises(StoreError, match="'7' fits none; finished are 00002, 00000"):
        choose(rows, manifest, top=None, trials=("7",))
    with pytest.raises(StoreError, match="'' fits 00000, 00001, 00002"):
        choose(rows, manifest, top=None, trials=("",))


def test_nothing_finished_is_one_line(tmp_path: Path) -> None:
    state = searched(tmp_path, [("pruned", 0), ("pruned", 0), ("oom", 0)])
    with pytest.raises(StoreError, match=r"toy has none \(2 pruned, 1 oom\); let the search go on first"):
        choose(state.store.trials(), state.store.manifest(), top=1)


def test_a_row_whose_configuration_cannot_be_made_again_is_refused(tmp_path: Path) -> None:
    state = searched(tmp_path, [(2.0, 400)])
    (row,) = state.store.trials()
    with pytest.raises(StoreError, match="must be 0123456789ab as it was trained"):
        choose([row | {"config_key": "0123456789ab"}], state.store.manifest(), top=1)


def test_what_is_trained_is_the_trial_s_on_more_images_until_its_best_report(tmp_path: Path) -> None:
    state = searched(tmp_path, [(2.0, 400), (1.5, 300)])
    store, manifest, space = open_final(asked(tmp_path))
    rows = {row["trial"]: row for row in state.store.trials()}
    pairs = [(origin["from_trial"], config.seed) for origin, config in zip(space.origins, space.configs, strict=True)]
    assert pairs == [("00001", 6), ("00000", 6), ("00001", 7), ("00000", 7)], "the base has seed 5"
    for origin, config in zip(space.origins, space.configs, strict=True):
        before = state.space.configure({"optim.lr": rows[str(origin["from_trial"])]["optim.lr"]})
        changed = {key: value for key, value in config.flat().items() if before.flat()[key] != value}
        stop = {"train.stop_after": 300} if origin["from_trial"] == "00001" else {}
        assert changed == {"data.train_on_valid": True, "seed": config.seed} | stop
        assert origin["from_search"] == "toy"
    assert store.search == "toy-final"
    assert manifest.final is not None
    assert store.manifest().to_json() == manifest.to_json()
    assert store.manifest().final == manifest.final
    assert [(item.value, item.best_images) for item in manifest.final.chosen] == [(1.5, 300), (2.0, 400)]


def test_longer_training_stretches_the_schedule(tmp_path: Path) -> None:
    searched(tmp_path, [(1.5, 300)])
    *_, space = open_final(asked(tmp_path, images=800))
    assert [(config.train.images, config.train.end) for config in space.configs] == [(800, 800)] * 2
    with pytest.raises(ConfigError, match=r"`train.images` must be a multiple of train.batch_size, but got 810 and 50"):
        open_final(asked(tmp_path, images=810))


def begin(folder: Path, **changes: Any) -> None:
    state, space = final_state(asked(folder, **changes))
    state.start(FixedTrials(space, state).next_plan(), state.space.resources)


def test_the_choice_is_made_once(tmp_path: Path) -> None:
    """The search goes on and finds better ones; the final stays as it began."""
    search = searched(tmp_path, [(2.0, 400), (1.5, 400)])
    begin(tmp_path)
    plan = search.plan({"optim.lr": 0.05})
    (row, _) = search.store.trials()
    facts = {"data_checksum": row["data_checksum"], "config_key": plan.config.key()}
    play(search, plan, BEGUN | {"facts": facts}, reported(400, 1.0), FINISHED)
    _, manifest, space = open_final(asked(tmp_path))
    assert manifest.final is not None
    assert names(manifest.final) == ["00001", "00000"]
    assert moved_on(asked(tmp_path), manifest.final) == ["00002", "00001"]
    with search.store.lock():
        assert open_final(asked(tmp_path))[2] == space, "the search may be at work again"
        assert moved_on(asked(tmp_path), manifest.final) == []
    Path(search.store.folder).rename(tmp_path / "gone")
    assert open_final(asked(tmp_path))[2] == space
    require_search(asked(tmp_path))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"top": 1}, "--top: 1 here, 2 in the results"),
        ({"images": 800}, "--images: 800 here, none in the results"),
        ({"trials": ("0", "1"), "top": None}, "--top: none here, 2 in the results; --trial: 0, 1 here, none in"),
        ({"search": "other", "name": "toy-final"}, "search: other here, toy in the results"),
    ],
)
def test_another_request_under_its_name_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    searched(tmp_path, [(2.0, 400), (1.5, 400)])
    begin(tmp_path)
    with pytest.raises(StoreError, match=f"as it began, but got {says}.*take another --name"):
        open_final(asked(tmp_path, **changes))
    if "search" not in changes:
        open_final(asked(tmp_path, name="another", **changes))


def test_a_final_that_has_not_begun_may_choose_anew(tmp_path: Path) -> None:
    searched(tmp_path, [(2.0, 400), (1.5, 400)])
    open_final(asked(tmp_path))
    *_, space = open_final(asked(tmp_path, top=1))
    assert len(space.configs) == 2


def test_more_seeds_go_on_and_fewer_are_done(tmp_path: Path) -> None:
    searched(tmp_path, [(2.0, 400), (1.5, 400)])
    begin(tmp_path)
    *_, two = open_final(asked(tmp_path))
    *_, three = open_final(asked(tmp_path, seeds=3))
    assert three.configs[:4] == two.configs
    assert (len(two.configs), len(three.configs), three.budget.trials, three.keep) == (4, 6, 6, 6)


def test_fewer_seeds_forget_no_run_that_has_begun(tmp_path: Path) -> None:
    """Such as one that was interrupted: the launch knows what it was, and keeps the weights of the finished ones."""
    searched(tmp_path, [(2.0, 400), (1.5, 400)])
    state, space = final_state(asked(tmp_path, seeds=2))
    plans = FixedTrials(space, state)
    for _ in range(4):
        state.start(plans.next_plan(), state.space.resources)
    again, one = final_state(asked(tmp_path, seeds=1))
    assert (one.configs, one.keep, one.budget.trials) == (space.configs, 4, 2)
    assert tuple(plan.config for plan in again.plans_to_resume()) == space.configs


def test_a_search_at_work_a_final_and_a_search_of_that_name_are_refused(tmp_path: Path) -> None:
    search = searched(tmp_path, [(2.0, 400)])
    with search.store.lock(), pytest.raises(StoreError, match="one launch must work on a search at a time"):
        open_final(asked(tmp_path))
    begin(tmp_path)
    with pytest.raises(StoreError, match="toy-final is a final of toy itself"):
        select(asked(tmp_path, search="toy-final"))
    with pytest.raises(StoreError, match="toy must be a final, but it is a search; take another --name"):
        open_final(asked(tmp_path, name="toy"))
    with pytest.raises(StoreError, match="must have been begun to be read"):
        require_search(asked(tmp_path, search="nowhere"))
    assert not (tmp_path / "nowhere-final").exists()
    with pytest.raises(StoreError, match=r"final of: none here, toy \(00000\) in the results"):
        make_store(tmp_path, "toy-final", search.space)


@pytest.mark.parametrize("setting", ["model.layers", "train.images", "seed", "data.num_valid", "data.pth"])
def test_what_is_retrained_cannot_be_set(tmp_path: Path, setting: str) -> None:
    searched(tmp_path, [(2.0, 400)])
    with pytest.raises(ConfigError, match=f"retrains configurations as they are: .* but got {setting}"):
        open_final(asked(tmp_path, settings={setting: 3}))


def test_resources_are_the_trials_and_may_be_set(tmp_path: Path) -> None:
    searched(tmp_path, [(2.0, 400)], resources=Resources(cpus=2, gpus=0.25))

    def found(**settings: Any) -> Resources:
        told = {key.replace("__", "."): value for key, value in settings.items()}
        return open_final(asked(tmp_path, settings=told))[2].resources

    assert found() == Resources(1, 2, 0.25)
    assert found(resources__workers=2, resources__cpus=3) == Resources(2, 3, 1.0), "a share cannot be shared"
    assert found(resources__gpus=0.5).gpus == 0.5
    assert found(train__micro_batch=10) == found()
    with pytest.raises(ConfigError, match=r"unknown key `resources\.worker`"):
        found(resources__worker=2)
    with pytest.raises(ConfigError, match="workers >= 1"):
        found(resources__workers=0)


def test_other_images_and_images_without_a_test_split_are_refused(tmp_path: Path) -> None:
    searched(tmp_path, [(2.0, 400)])
    _, manifest, space = open_final(asked(tmp_path))
    assert manifest.final is not None
    require_final_data(space, manifest.final)
    with pytest.raises(StoreError, match=r"on the images of its search \(checksum abc\), but got "):
        require_final_data(space, replace(manifest.final, data_checksum="abc"))


def test_a_set_without_a_test_split_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", train=np.zeros((80, 8, 8), dtype=np.uint8), levels=17)
    base = toy_config().override({"data.name": "array", "data.path": str(tmp_path / "set.npz")})
    searched(tmp_path, [(2.0, 400)], base=base)
    _, manifest, space = open_final(asked(tmp_path))
    assert manifest.final is not None
    with pytest.raises(DataError, match="a final reads a test split, but array has none; hold images out"):
        require_final_data(space, manifest.final)


def test_rows_that_say_that_there_is_no_test_split_are_enough(tmp_path: Path) -> None:
    """The images may be on other machines; rows of earlier versions do not say it."""
    state = searched(tmp_path, [(2.0, 400)])
    row = state.ended["00000"]
    state.store.write_trial(row | {"num_test": 0})
    with pytest.raises(DataError, match="a final reads a test split, but digits has none"):
        open_final(asked(tmp_path))


def test_a_search_never_trains_on_validation() -> None:
    base = toy_config().override({"data.train_on_valid": True})
    with pytest.raises(ConfigError, match=r"`data\.train_on_valid` must be false, but got true"):
        SearchSpace(base=base)


def test_configurations_of_other_classes_are_made_again_exactly() -> None:
    """A change of family keeps some keys of the base and resets others."""
    vary = {
        "model.family": CategoricalDistribution(("gated", "pixelcnn", "pixelcnnpp")),
        "model.layers": IntDistribution(1, 4),
    }
    space = toy_space(vary=vary, scheduler=None)
    chosen = {
        family: space.configure({"model.family": family, "model.layers": 3}).override({"data.train_on_valid": True})
        for family in ("gated", "pixelcnn", "pixelcnnpp")
    }
    for order in (list(chosen), list(chosen)[::-1]):
        final = FinalSpace.of(
            {name: chosen[name] for name in order}, search="s", seeds=range(1, 3), resources=Resources()
        )
        made = [final.configure(suggestion) for suggestion in final.suggestions()]
        assert made == list(final.configs)
        assert [final.configure(final.suggestion_of({"number": number})) for number in range(6)] == made
        assert all(isinstance(config, TrialConfig) for config in made)


def test_plans_are_the_list_and_first_what_was_left(tmp_path: Path) -> None:
    searched(tmp_path, [(2.0, 400), (1.5, 400)])
    state, space = final_state(asked(tmp_path))
    plans = FixedTrials(space, state)
    first, second, third = (plans.next_plan() for _ in range(3))
    assert [plan.config for plan in (first, second, third)] == list(space.configs[:3])
    silent = {key: None for key in reported(100, 2.0)["report"] if key.startswith("valid_")}
    play(state, first, BEGUN, reported(100, 2.0, **silent), FINISHED | {"facts": {"test_nats": 80.0}})
    play(state, second, BEGUN, crash="ValueError: once")
    state.start(third, state.space.resources)
    assert state.ended["00000"]["test_nats"] == 80.0
    assert state.ended["00000"]["valid_nats"] is None
    assert (state.ended["00000"]["from_search"], state.ended["00000"]["from_trial"]) == ("toy", "00001")

    later = SearchState(space, state.store)
    assert sorted(later.ended) == ["00000"], "what crashed is tried again by the next launch"
    plans = FixedTrials(space, later)
    again = [plans.next_plan() for _ in range(3)]
    assert [(plan.trial, plan.attempt) for plan in again] == [("00001", 2), ("00002", 2), ("00003", 1)]
    assert [plan.config for plan in again] == list(space.configs[1:])


def test_a_run_that_never_began_is_planned_again(tmp_path: Path) -> None:
    """Two began at once, the second one first, and the launch was killed between."""
    searched(tmp_path, [(2.0, 400), (1.5, 400)])
    state, space = final_state(asked(tmp_path))
    plans = FixedTrials(space, state)
    never, second = plans.next_plan(), plans.next_plan()
    state.start(second, state.space.resources)
    plans = FixedTrials(space, SearchState(space, state.store))
    again = [plans.next_plan() for _ in range(len(space.configs))]
    assert again == [second.next_attempt(), never, *again[2:]]
    assert sorted(plan.number for plan in again) == list(range(len(space.configs)))


def test_a_final_follows_its_search_to_a_new_name_and_not_to_a_new_search(tmp_path: Path) -> None:
    """The same trials under another name are the same; others under the old name would be shown with these numbers."""
    searched(tmp_path, [(2.0, 400), (1.5, 400)])
    begin(tmp_path)
    (tmp_path / "toy").rename(tmp_path / "old")
    request = asked(tmp_path, search="old", name="toy-final")
    store, manifest, _ = open_final(request)
    assert manifest.final is not None
    assert (manifest.final.search, len(store.trials())) == ("toy", 1)
    searched(tmp_path, [(1.0, 400), (1.1, 400)])
    with pytest.raises(StoreError, match="search: another search called toy here, toy in the results"):
        open_final(asked(tmp_path))
