import re

import numpy as np
from page_reader import Page

from san_jax.report import query_lists
from san_jax.report.query_lists import average_precisions, hardest_and_easiest


def test_right_pictures_are_marked_right_and_wrong_ones_wrong(san_page):
    page = Page(san_page[0])
    framed = [found["class"].split()[1] for found in page.named("li") if found.get("class", "").startswith("framed")]
    found = [image["alt"] for image in page.named("img") if re.match(r"\d+: ", image["alt"])]
    asked = [image["alt"] for image in page.named("img") if image["alt"].startswith("query ")]
    assert len(asked) == 2 * query_lists.NUM_QUERIES
    assert len(found) == len(framed) == query_lists.NUM_RANKED * len(asked)
    pids = [int(re.search(r"person (\d+)", alt)[1]) for alt in found]
    expected = np.repeat([int(re.search(r"person (\d+)", alt)[1]) for alt in asked], query_lists.NUM_RANKED)
    assert framed == ["right" if right else "wrong" for right in pids == expected]
    assert len(set(framed)) == 2
    assert all(kind in alt for kind, alt in zip(framed, found, strict=True))


def test_pictures_of_the_query_pid_by_the_query_camera_are_not_shown(san_page):
    for image in Page(san_page[0]).named("img"):
        if image["alt"].startswith("query "):
            asked = re.search(r"person \d+, camera \d+", image["alt"])[0]
        elif "right" in image["alt"]:
            assert not image["alt"].endswith(asked)


def test_hardest_and_easiest_are_by_average_precision_with_one_query_per_pid():
    pids = np.repeat(np.arange(12), 2)
    ranks = np.arange(1, 25)[:, None]  # query 0 is the easiest, 23 the hardest
    hardest, easiest = hardest_and_easiest(average_precisions(ranks), pids)
    assert hardest == [23, 21, 19, 17, 15]
    assert easiest == [0, 2, 4, 6, 8]


def test_query_is_in_at_most_one_list_and_in_none_without_a_right_picture():
    ranks = np.array([[3, 0], [0, 0], [1, 2], [1, 0]])
    hardest, easiest = hardest_and_easiest(average_precisions(ranks), np.arange(4))
    assert hardest[0] == 0
    assert sorted(hardest + easiest) == [0, 2, 3]


def test_equally_hard_queries_are_chosen_by_the_seed():
    ranks = np.ones((100, 1), int)
    found = hardest_and_easiest(average_precisions(ranks), np.arange(100))
    assert found == hardest_and_easiest(average_precisions(ranks), np.arange(100))
    assert found[0] != list(range(5))
