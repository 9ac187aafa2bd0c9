"""The first thing of a launch: all ranks meet, and nothing goes on unless they agree."""
