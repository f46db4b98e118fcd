"""A source of images cut short, so that a run takes a second."""


class FewImages:
    """The first images of a source."""

    def __init__(self, images, count):
        self.images, self.count = images, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.images[index]

    def label(self, index):
        return self.images.label(index)

    def size(self, index):
        return self.images.size(index)

    def fingerprint(self):
        return f"{self.count} of {self.images.fingerprint()}"
