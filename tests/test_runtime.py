"""Progress where there is no terminal."""

import time

from fbnet.runtime import Progress, log


def test_a_progress_line_comes_when_nothing_was_said_for_a_minute(caplog):
    with caplog.at_level("INFO", logger=log.name), Progress(total=1000, unit="images") as bar:
        bar.set_description("epoch 2/7", refresh=False)
        bar.set_postfix_str("loss 1.25", refresh=False)
        bar.update(300)
        bar.refresh()
        assert not caplog.messages
        Progress.last_line = time.monotonic() - 61
        bar.refresh()
        bar.refresh()
    [line] = caplog.messages
    assert line.startswith("epoch 2/7: 300 of 1000 images (30%), ")
    assert line.endswith(" left, loss 1.25")
