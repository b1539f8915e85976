from leadre.cli.learning import print_evaluation


def figures(value):
    return {metric: {"mean": value, "low": 0.0, "high": 1.0} for metric in ("HR@4", "HR@10", "NDCG@4", "NDCG@10")}


def test_slices_stand_in_one_table_at_the_largest_cutoff(capsys):
    by_system = {"leadre": figures(0.25), "sasrec": figures(0.5)}
    lists = {"mean_ecpm": 1.0, "diversity": 0.1, "concentration": 0.5, "abundance": 2.0}
    print_evaluation(
        "r1",
        {
            "users": 1_234,
            "tied": 0,
            "cutoffs": (4, 10),
            "metrics": {system: {"canonical": values} for system, values in by_system.items()},
            "slices": {"cold_ads": {"users": 56, "metrics": {"leadre": figures(0.125), "sasrec": figures(0.0)}}},
            "lists": {"leadre": lists, "sasrec": lists},
            "simulated_ecpm": False,
        },
    )
    printed = capsys.readouterr().out
    assert "HR@10/NDCG@10" in printed
    assert next(line for line in printed.splitlines() if "cold_ads" in line).split() == (
        ["cold_ads", "56", ".1250/.1250", ".0000/.0000"]
    )
