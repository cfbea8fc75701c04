"""Questions to a table of posts: tags by pattern, ids by list. Vectorised; nothing here opens a picture."""

from datasets.query.ids import IdList, pin_ids, read_ids
from datasets.query.patterns import TagPattern, covers_tag
from datasets.query.tags import TagAnswers, TagQuestions, ask_tags, count_tags

__all__ = [
    "IdList",
    "TagAnswers",
    "TagPattern",
    "TagQuestions",
    "ask_tags",
    "count_tags",
    "covers_tag",
    "pin_ids",
    "read_ids",
]
