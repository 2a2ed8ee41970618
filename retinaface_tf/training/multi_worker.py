def distribute(strategy, make):
    return make(0, 1)


def is_chief(strategy):
    return True
