"""The page: reports as one HTML file that needs no network.

``coding`` makes maps small, ``content`` puts reports into plain data, ``pictures`` draws the images, ``page`` writes
the file from the HTML, CSS and JavaScript in ``assets``.
"""
