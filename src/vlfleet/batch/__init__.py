"""Questions about many pictures: read row by row, asked as fast as the fleet answers, written down once each."""
