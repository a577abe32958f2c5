"""Published numbers are those printed, with their source and their faults."""

from attribench.report.published import published


def test_the_headline_numbers_are_as_printed():
    values = published("artchive", "between-concepts", "un-mixed", 5).set_index(["method", "metric"])["value"]
    assert values["MONTRAGE", "recall@5"] == 0.442
    assert values["GenDataAttribution", "spearman_with_table"] == 0.509
    assert published("customconcept101", "between-concepts", "mixed", 10)["value"].tolist() == [
        0.763, 0.525, 0.16, 0.937, 0.647, 0.19, 0.906, 0.525, 0.46,
    ]  # fmt: skip


def test_both_tables_are_there_whole_with_their_source():
    rows = [published(name, "between-concepts") for name in ("customconcept101", "artchive")]
    assert [len(of_set) for of_set in rows] == [36, 36]
    assert all(of_set["source"].str.contains("supplement table").all() for of_set in rows)


def test_the_rows_that_contradict_themselves_are_flagged():
    for name in ("customconcept101", "artchive"):
        flagged = published(name, "between-concepts").query("flag != ''")
        assert set(flagged["method"]) == {"D-TRAK"} and set(flagged["variant"]) == {"un-mixed"}
        assert len(flagged) == 6


def test_nothing_published_is_an_empty_frame():
    assert published("mscoco", "lds").empty


def test_the_counterfactual_of_unlearning_is_kept_with_the_version_that_it_is_from():
    rows = published("mscoco", "leave-k-out", "captions").set_index(["method", "metric"])
    assert rows.loc[("Unlearning", "delta_loss@500"), "value"] == 5.6
    assert rows.loc[("D-TRAK", "delta_loss@4000"), "value"] == 9.6
    assert rows.loc[("Unlearning", "equivalent_random@500"), "value"] == 57_500
    assert rows["source"].str.contains("Wang et al. 2024").all()
