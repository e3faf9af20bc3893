"""Images of what the robot saw, imagined and drove: figures, videos and one self-contained HTML report.

Everything here takes plain arrays and returns PNG or MP4 bytes (or writes a file). The modules:

- :mod:`come_nav.viz.figures`: every figure under one name space.
- :mod:`come_nav.viz.video`: MP4 that browsers play, and the frames that go into it.
- :mod:`come_nav.viz.report`: :class:`~come_nav.viz.report.HtmlReport`.
"""
