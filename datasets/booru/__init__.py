"""The demo board: a generated imageboard in Danbooru's layout, with the truth about every post beside it."""
