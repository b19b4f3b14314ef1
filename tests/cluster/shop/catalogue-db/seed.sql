CREATE TABLE socks (
    id text PRIMARY KEY,
    name text NOT NULL,
    description text NOT NULL,
    price_cents integer NOT NULL,
    pairs integer NOT NULL,
    tags text[] NOT NULL
);

INSERT INTO socks VALUES
    ('holy', 'Holy', 'Socks fit for a Messiah. You too can experience walking in water with these special edition beauties.', 9900, 1, '{magic,action}'),
    ('colourful', 'Colourful', 'A pair of socks in every colour that the dye works had left over.', 1800, 3, '{brown,blue}'),
    ('super-sport', 'SuperSport XL', 'Ready for action. Engineers: be ready to smash that next bug!', 1500, 2, '{sport,formal,black}'),
    ('crossed', 'Crossed', 'A mature sock, crossed, with an air of nonchalance.', 1732, 1, '{blue,action,red,formal}'),
    ('figueroa', 'Figueroa', 'Enim officia aliqua excepteur esse deserunt quis aliquip nostrud anim.', 1400, 2, '{green,formal,blue}'),
    ('classic', 'Classic', 'Keep it simple.', 1200, 6, '{brown,green}'),
    ('cat', 'Cat socks', 'Für Katzenfreunde: with ears, whiskers and 猫.', 1500, 1, '{brown,blue,green}'),
    ('odd', 'Odd sock', 'One sock, and no pair.', 300, 0, '{red}');

