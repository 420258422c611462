from tests.store import places

place = places.place
