"""Where images come from; `gencourse.data` is the door. Skip at first reading."""
